//! Licence expressions, as package manifests state them.

/// Whether `expression` can be satisfied with licences for which `allowed` holds.
///
/// Understands SPDX's `AND`, `OR`, `WITH` and parentheses, and the older `/` for `OR`.
///
/// # Errors
/// If `expression` is not a licence expression; the message says at which word.
pub fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let words = words(expression);
    let mut reader = Reader { words: &words, at: 0, depth: 0, allowed };
    let answer = reader.any()?;
    match reader.peek() {
        None => Ok(answer),
        Some(word) => Err(format!("`{word}` is out of place in licence `{expression}`")),
    }
}

const DEPTH_MAX: usize = 16;

fn words(expression: &str) -> Vec<String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    spaced.split_whitespace().map(str::to_owned).collect()
}

struct Reader<'a> {
    words: &'a [String],
    at: usize,
    depth: usize,
    allowed: &'a dyn Fn(&str) -> bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<&str> {
        self.words.get(self.at).map(String::as_str)
    }

    fn take(&mut self, word: &str) -> bool {
        let there = self.peek() == Some(word);
        self.at += usize::from(there);
        there
    }

    fn any(&mut self) -> Result<bool, String> {
        let mut answer = self.all()?;
        while self.take("OR") {
            answer |= self.all()?;
        }
        Ok(answer)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut answer = self.one()?;
        while self.take("AND") {
            answer &= self.one()?;
        }
        Ok(answer)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err("the licence is nested too deeply".into());
            }
            let answer = self.any()?;
            self.depth -= 1;
            return if self.take(")") { Ok(answer) } else { Err("a parenthesis is not closed".into()) };
        }
        let Some(name) = self.peek().filter(|word| !["AND", "OR", "WITH", ")"].contains(word)) else {
            return Err(format!("a licence is missing at word {}", self.at + 1));
        };
        let mut name = name.to_owned();
        self.at += 1;
        if self.take("WITH") {
            let exception = self.peek().ok_or("an exception is missing after WITH")?;
            name = format!("{name} WITH {exception}");
            self.at += 1;
        }
        Ok((self.allowed)(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissive(expression: &str) -> Result<bool, String> {
        satisfied(expression, &|name| ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].contains(&name))
    }

    #[test]
    fn a_choice_needs_one_acceptable_side_and_a_sum_needs_both() {
        assert_eq!(permissive("MIT"), Ok(true));
        assert_eq!(permissive("GPL-3.0-only"), Ok(false));
        assert_eq!(permissive("GPL-2.0 OR MIT"), Ok(true));
        assert_eq!(permissive("GPL-2.0 AND MIT"), Ok(false));
        assert_eq!(permissive("MIT/Apache-2.0"), Ok(true));
        assert_eq!(permissive("(MIT OR Apache-2.0) AND NCSA"), Ok(false));
        assert_eq!(permissive("GPL-2.0 OR (Apache-2.0 WITH LLVM-exception AND MIT)"), Ok(true));
        assert_eq!(permissive("GPL-2.0 WITH Classpath-exception-2.0"), Ok(false));
    }

    #[test]
    fn what_is_not_an_expression_is_refused() {
        for bad in ["", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH", &"(".repeat(40)] {
            assert!(permissive(bad).is_err(), "{bad:?} was understood");
        }
    }
}
