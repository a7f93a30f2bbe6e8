//! A store of values by key.

use std::collections::BTreeMap;

use crate::machine::{Machine, lines};

/// Values by key. Commands: `put KEY VALUE`, `get KEY`, `delete KEY`. Keys have no spaces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Store {
    values: BTreeMap<String, String>,
}

impl Machine for Store {
    fn execute(&mut self, command: &str) -> String {
        let mut words = command.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("put"), Some(key), Some(value)) => {
                self.values.insert(key.to_owned(), value.to_owned());
                "ok".to_owned()
            }
            (Some("get"), Some(key), None) => match self.values.get(key) {
                Some(value) => format!("value {value}"),
                None => "nothing".to_owned(),
            },
            (Some("delete"), Some(key), None) => match self.values.remove(key) {
                Some(_) => "ok".to_owned(),
                None => "nothing".to_owned(),
            },
            _ => "what? put KEY VALUE, get KEY, delete KEY".to_owned(),
        }
    }

    fn save(&self) -> Vec<u8> {
        let line = |(key, value): (&String, &String)| format!("{key} {value}\n");
        self.values.iter().map(line).collect::<String>().into_bytes()
    }

    fn load(bytes: &[u8]) -> Result<Store, String> {
        let pair = |line: &str| {
            let pair = line.split_once(' ').map(|(key, value)| (key.to_owned(), value.to_owned()));
            pair.ok_or_else(|| format!("no key and value: {line:?}"))
        };
        Ok(Store { values: lines(bytes)?.map(pair).collect::<Result<_, String>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_executed_and_the_state_survives_its_bytes() {
        let mut store = Store::default();
        let script = [
            ("get a", "nothing"),
            ("put a one two", "ok"),
            ("put b ", "ok"),
            ("get a", "value one two"),
            ("get b", "value "),
            ("delete a", "ok"),
            ("delete a", "nothing"),
            ("put c", "what? put KEY VALUE, get KEY, delete KEY"),
        ];
        for (command, reply) in script {
            assert_eq!(store.execute(command), reply, "{command}");
        }
        assert_eq!(Store::load(&store.save()), Ok(store));
        assert!(Store::load(b"alone").is_err() && Store::load(&[0xff]).is_err());
    }
}
