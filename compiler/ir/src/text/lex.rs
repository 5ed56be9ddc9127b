//! Words of the text form.

use super::error_at;
use crate::Result;

/// Line and column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub line: u32,
    pub column: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A C-like identifier; quoted names are [`Token::Str`].
    Word(String),
    Str(String),
    /// A number as written, sign included.
    Number(String),
    Mark(char),
    /// `=>`
    Arrow,
    End,
}

/// Every token with its place, ended by [`Token::End`]. `#` starts a comment.
pub fn tokens(text: &str) -> Result<Vec<(Token, Place)>> {
    let mut lexer = Lexer { chars: text.chars().peekable(), place: Place { line: 1, column: 1 } };
    let mut out = Vec::new();
    loop {
        lexer.skip();
        let place = lexer.place;
        let token = lexer.token(place)?;
        let last = token == Token::End;
        out.push((token, place));
        if last {
            return Ok(out);
        }
    }
}

struct Lexer<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    place: Place,
}

impl Lexer<'_> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.place = Place { line: self.place.line.saturating_add(1), column: 1 };
        } else {
            self.place.column = self.place.column.saturating_add(1);
        }
        Some(c)
    }

    fn skip(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.next();
                }
            } else if !c.is_whitespace() {
                return;
            }
            self.next();
        }
    }

    fn token(&mut self, place: Place) -> Result<Token> {
        let Some(c) = self.next() else { return Ok(Token::End) };
        Ok(match c {
            '"' => Token::Str(self.string(place)?),
            '=' if self.peek() == Some('>') => {
                self.next();
                Token::Arrow
            }
            '<' | '>' | '(' | ')' | '[' | ']' | '{' | '}' | ',' | '=' | ':' | '?' | '.' => Token::Mark(c),
            c if c.is_ascii_alphabetic() || c == '_' => Token::Word(self.word(c)),
            '+' | '-' if self.peek().is_some_and(|c| c.is_ascii_alphabetic()) => {
                let first = self.next().unwrap_or('_');
                Token::Number(format!("{c}{}", self.word(first)))
            }
            '+' | '-' | '0'..='9' => Token::Number(self.number(c)),
            c => {
                return Err(error_at(place, format!("unexpected character {c:?}; quote names that hold it")));
            }
        })
    }

    fn word(&mut self, first: char) -> String {
        let mut s = String::from(first);
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
            s.push(c);
            self.next();
        }
        s
    }

    fn number(&mut self, first: char) -> String {
        let mut s = String::from(first);
        while let Some(c) = self.peek() {
            let sign = matches!(c, '+' | '-') && s.ends_with(['e', 'E']);
            if !(sign || c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E')) {
                break;
            }
            s.push(c);
            self.next();
        }
        s
    }

    /// The rest of a quoted string; a backslash makes the next quote or backslash plain.
    fn string(&mut self, place: Place) -> Result<String> {
        let mut s = String::new();
        while let Some(c) = self.next() {
            match c {
                '"' => return Ok(s),
                '\\' if matches!(self.peek(), Some('"' | '\\')) => s.extend(self.next()),
                c => s.push(c),
            }
        }
        Err(error_at(place, "the string that starts here has no end"))
    }
}
