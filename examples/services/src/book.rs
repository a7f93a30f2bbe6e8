//! An order book: price, then time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::str::FromStr;

use crate::machine::{Machine, digest, lines};

/// A limit order that rests in the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    id: u64,
    quantity: u64,
}

/// Bids and asks by price, oldest first. Commands: `buy ID PRICE QUANTITY`, `sell ID PRICE QUANTITY`, `cancel ID`, `book`.
/// Prices are whole ticks. An order trades with the best of the other side as far as prices cross; what is left rests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Book {
    bids: BTreeMap<u64, VecDeque<Order>>,
    asks: BTreeMap<u64, VecDeque<Order>>,
    /// By id of what rests: whether it is a bid, and its price.
    resting: BTreeMap<u64, (bool, u64)>,
    trades: u64,
    /// Wider than a quantity: no number of trades that there can be fills it.
    traded: u128,
    /// Of all trades there were, in their order.
    tape: u64,
}

impl Book {
    fn place(&mut self, bid: bool, id: u64, price: u64, mut quantity: u64) -> String {
        if quantity == 0 || self.resting.contains_key(&id) {
            return "refused".to_owned();
        }
        let wanted = quantity;
        while quantity > 0 {
            let best = if bid { self.asks.first_entry() } else { self.bids.last_entry() };
            let Some(mut level) =
                best.filter(|level| if bid { *level.key() <= price } else { *level.key() >= price })
            else {
                break;
            };
            let at = *level.key();
            let Some(other) = level.get_mut().front_mut() else {
                level.remove();
                continue;
            };
            let (trade, against) = (quantity.min(other.quantity), other.id);
            quantity -= trade;
            other.quantity -= trade;
            if other.quantity == 0 {
                level.get_mut().pop_front();
                if level.get().is_empty() {
                    level.remove();
                }
                self.resting.remove(&against);
            }
            self.record([id, against, at, trade]);
        }
        if quantity > 0 {
            let side = if bid { &mut self.bids } else { &mut self.asks };
            side.entry(price).or_default().push_back(Order { id, quantity });
            self.resting.insert(id, (bid, price));
        }
        format!("traded {}", wanted - quantity)
    }

    fn record(&mut self, trade: [u64; 4]) {
        let mut bytes = self.tape.to_le_bytes().to_vec();
        bytes.extend(trade.iter().flat_map(|number| number.to_le_bytes()));
        self.tape = digest(&bytes);
        self.trades += 1;
        self.traded += u128::from(trade[3]);
    }

    fn cancel(&mut self, id: u64) -> String {
        let Some((bid, price)) = self.resting.remove(&id) else { return "nothing".to_owned() };
        let side = if bid { &mut self.bids } else { &mut self.asks };
        if let Some(level) = side.get_mut(&price) {
            level.retain(|order| order.id != id);
            if level.is_empty() {
                side.remove(&price);
            }
        }
        "ok".to_owned()
    }
}

impl Machine for Book {
    fn execute(&mut self, command: &str) -> String {
        let mut words = command.split(' ');
        let verb = words.next();
        let numbers: Option<Vec<u64>> = words.map(|word| word.parse().ok()).collect();
        match (verb, numbers.as_deref()) {
            (Some("buy"), Some([id, price, quantity])) => self.place(true, *id, *price, *quantity),
            (Some("sell"), Some([id, price, quantity])) => self.place(false, *id, *price, *quantity),
            (Some("cancel"), Some([id])) => self.cancel(*id),
            (Some("book"), Some([])) => format!(
                "{} resting, {} trades of {} in all, tape {:016x}",
                self.resting.len(),
                self.trades,
                self.traded,
                self.tape
            ),
            _ => "what? buy ID PRICE QUANTITY, sell ID PRICE QUANTITY, cancel ID, book".to_owned(),
        }
    }

    fn save(&self) -> Vec<u8> {
        let mut text = format!("{} {} {}\n", self.trades, self.traded, self.tape);
        for (side, levels) in [("bid", &self.bids), ("ask", &self.asks)] {
            for (price, orders) in levels {
                for Order { id, quantity } in orders {
                    writeln!(text, "{side} {price} {id} {quantity}").expect("text takes text");
                }
            }
        }
        text.into_bytes()
    }

    fn load(bytes: &[u8]) -> Result<Book, String> {
        let mut book = Book::default();
        let mut lines = lines(bytes)?;
        let sums: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let [trades, traded, tape] = sums[..] else { return Err("no sums".to_owned()) };
        (book.trades, book.traded, book.tape) = (number(trades)?, number(traded)?, number(tape)?);
        let numbers = |line: &str| line.split(' ').map(number).collect::<Result<Vec<u64>, String>>();
        for line in lines {
            let (side, rest) = line.split_once(' ').ok_or("no order")?;
            let ([price, id, quantity], bid) =
                (numbers(rest)?[..].try_into().map_err(|_| "no order")?, side == "bid");
            let levels = if bid { &mut book.bids } else { &mut book.asks };
            levels.entry(price).or_default().push_back(Order { id, quantity });
            book.resting.insert(id, (bid, price));
        }
        Ok(book)
    }
}

fn number<N: FromStr>(word: &str) -> Result<N, String> {
    word.parse().map_err(|_| format!("no number: {word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_trade_by_price_then_time_and_the_state_survives_its_bytes() {
        let mut book = Book::default();
        let script = [
            ("sell 1 101 5", "traded 0"),
            ("sell 2 100 5", "traded 0"),
            ("sell 3 100 5", "traded 0"),
            ("buy 4 100 7", "traded 7"),
            ("sell 3 1 1", "refused"),
            ("cancel 2", "nothing"),
            ("buy 5 102 10", "traded 8"),
            ("sell 6 103 1", "traded 0"),
            ("buy 7 1 0", "refused"),
            ("cancel 6", "ok"),
            ("buy x 1 1", "what? buy ID PRICE QUANTITY, sell ID PRICE QUANTITY, cancel ID, book"),
        ];
        for (command, reply) in script {
            assert_eq!(book.execute(command), reply, "{command}");
        }
        assert!(
            book.execute("book").starts_with("1 resting, 4 trades of 15 in all"),
            "{}",
            book.execute("book")
        );
        let copy = Book::load(&book.save()).unwrap();
        assert_eq!(copy, book);
        assert!(Book::load(b"1 2").is_err() && Book::load(b"1 2 3\nbid 4").is_err());
    }

    #[test]
    fn sums_hold_more_than_any_quantity() {
        let mut book = Book::default();
        for id in 0..3 {
            let most = u64::MAX;
            assert_eq!(book.execute(&format!("sell {} 1 {most}", 2 * id)), "traded 0");
            assert_eq!(book.execute(&format!("buy {} 1 {most}", 2 * id + 1)), format!("traded {most}"));
        }
        let sum = 3 * u128::from(u64::MAX);
        assert!(book.execute("book").starts_with(&format!("0 resting, 3 trades of {sum} in all")));
        assert_eq!(Book::load(&book.save()), Ok(book));
    }
}
