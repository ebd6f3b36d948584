//! The plain JSON that tokens consist of, in one pass.
//!
//! What is taken here is JSON beyond doubt: strings without escapes, integers without a sign, names
//! that come once. Everything else, every fault included, is left to serde_json, which reads the
//! text anew and has the last word: so there is one judge of what is JSON, and its error messages.

use std::borrow::Cow;

use super::{MAX_BYTES, MAX_DEPTH, Members, Names, Node};

/// Digits that fit 64 bits whatever they are.
const MAX_DIGITS: usize = 19;

/// Picks members as [`super::pick`] does; `None` if the text is not plain, or not JSON.
pub(super) fn pick<'a, const N: usize>(
    json: &'a str,
    place: impl Fn(&str) -> Option<usize>,
) -> Option<[Option<Node<'a>>; N]> {
    if json.len() > MAX_BYTES {
        return None;
    }
    let mut reader = Reader { text: json, at: 0 };
    let mut picked = [const { None }; N];
    reader.blanks();
    reader.object(|reader, name| {
        let into = place(name).and_then(|place| picked.get_mut(place));
        reader.value(1, into.map(|place| place.insert(Node::Null)))
    })?;
    reader.blanks();
    (reader.at == json.len()).then_some(picked)
}

struct Reader<'a> {
    text: &'a str,
    /// How much of it is read: octets, always to the end of a character.
    at: usize,
}

impl<'a> Reader<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at = self.at.saturating_add(1);
        }
    }

    #[inline]
    fn take(&mut self, octet: u8) -> Option<()> {
        if self.peek()? != octet {
            return None;
        }
        self.at = self.at.saturating_add(1);
        Some(())
    }

    /// One value inside of `depth` open containers, written into its place if there is one.
    fn value(&mut self, depth: usize, into: Option<&mut Node<'a>>) -> Option<()> {
        self.blanks();
        let node = match self.peek()? {
            b'"' => Node::String(Cow::Borrowed(self.string()?)),
            b'0'..=b'9' => Node::Number(self.integer()?.into()),
            b'[' => return self.array(depth, into),
            b'{' => return self.nested(depth, into),
            b't' => self.word("true", Node::Bool(true))?,
            b'f' => self.word("false", Node::Bool(false))?,
            b'n' => self.word("null", Node::Null)?,
            _ => return None,
        };
        if let Some(into) = into {
            *into = node;
        }
        Some(())
    }

    fn array(&mut self, depth: usize, into: Option<&mut Node<'a>>) -> Option<()> {
        let inside = deeper(depth)?;
        let mut list = Vec::new();
        self.take(b'[')?;
        self.blanks();
        if self.take(b']').is_none() {
            loop {
                let mut node = Node::Null;
                self.value(inside, into.is_some().then_some(&mut node))?;
                if into.is_some() {
                    list.push(node);
                }
                self.blanks();
                if self.take(b',').is_none() {
                    break self.take(b']')?;
                }
            }
        }
        if let Some(into) = into {
            *into = Node::Array(list);
        }
        Some(())
    }

    fn nested(&mut self, depth: usize, into: Option<&mut Node<'a>>) -> Option<()> {
        let inside = deeper(depth)?;
        let mut members = Members::new();
        self.object(|reader, name| {
            let mut node = Node::Null;
            reader.value(inside, into.is_some().then_some(&mut node))?;
            if into.is_some() {
                members.push((Cow::Borrowed(name), node));
            }
            Some(())
        })?;
        if let Some(into) = into {
            *into = Node::Object(members);
        }
        Some(())
    }

    /// An object, whose values `member` reads, each by its name.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        self.blanks();
        if self.take(b'}').is_some() {
            return Some(());
        }
        let mut names = Names::new();
        loop {
            self.blanks();
            let name = self.string()?;
            names.insert(Cow::Borrowed(name)).ok()?;
            self.blanks();
            self.take(b':')?;
            member(self, name)?;
            self.blanks();
            if self.take(b',').is_none() {
                return self.take(b'}');
            }
        }
    }

    /// A string without escapes (RFC 8259, section 7).
    #[inline]
    fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let start = self.at;
        let octets = self.text.as_bytes();
        // Eight octets at a time: a branch for each would cost more than all the rest.
        while let Some(eight) = octets.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let ends = ends_of(u64::from_le_bytes(*eight));
            if ends != 0 {
                let before = usize::try_from(ends.trailing_zeros() / 8).ok()?;
                self.at = self.at.saturating_add(before);
                break;
            }
            self.at = self.at.saturating_add(8);
        }
        while !matches!(self.peek()?, b'"' | b'\\' | 0..=0x1F) {
            self.at = self.at.saturating_add(1);
        }
        let string = self.text.get(start..self.at)?;
        self.take(b'"')?;
        Some(string)
    }

    /// Digits alone (RFC 8259, section 6); what follows them is the caller's to judge.
    fn integer(&mut self) -> Option<u64> {
        let start = self.at;
        let mut number = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number.checked_mul(10)?.checked_add(u64::from(digit & 0xF))?;
            self.at = self.at.saturating_add(1);
        }
        let digits = self.at.saturating_sub(start);
        let leading_zero = digits > 1 && self.text.as_bytes().get(start) == Some(&b'0');
        (digits <= MAX_DIGITS && !leading_zero).then_some(number)
    }

    fn word(&mut self, word: &str, node: Node<'a>) -> Option<Node<'a>> {
        if !self.text.get(self.at..)?.starts_with(word) {
            return None;
        }
        self.at = self.at.saturating_add(word.len());
        Some(node)
    }
}

fn deeper(depth: usize) -> Option<usize> {
    (depth < MAX_DEPTH).then_some(depth.saturating_add(1))
}

/// The high bit of the first octet, the lowest, that ends a string's plain text: a quotation mark,
/// a backslash or a control character. Higher bits may be set without cause.
#[inline]
const fn ends_of(eight: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * EACH;
    const fn zeros(eight: u64) -> u64 {
        eight.wrapping_sub(EACH) & !eight & HIGH
    }
    let control = eight.wrapping_sub(0x20 * EACH) & !eight & HIGH;
    zeros(eight ^ (0x22 * EACH)) | zeros(eight ^ (0x5C * EACH)) | control
}
