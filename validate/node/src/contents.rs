//! Contents of cached tokens by number, so that JavaScript parses each of them once.

use std::collections::{HashMap, VecDeque};

use chancery_relying_party::Validated;

/// Numbers for the contents of tokens that the cache hands out again and again.
///
/// A cached token's content is shared, not copied, so its address tells it. An address is used again
/// only when nobody holds it any more; what stands here is held.
pub struct Contents {
    limit: usize,
    /// The content's address, and its number.
    numbers: HashMap<usize, u64>,
    /// In the order of their numbers, which are consecutive.
    held: VecDeque<Validated>,
    /// The number of the first that is held.
    first: u64,
}

impl Contents {
    /// Holds at most `limit` contents; 0 for none.
    pub fn new(limit: usize) -> Self {
        Self { limit, numbers: HashMap::new(), held: VecDeque::new(), first: 0 }
    }

    /// The number of the token's content, if it was shown before; from now on it has one. A number is
    /// never given to another content; JavaScript has them as floats, exact up to 2^53.
    pub fn number(&mut self, token: &Validated) -> Option<f64> {
        if self.limit == 0 {
            return None;
        }
        let address = address(token);
        if let Some(number) = self.numbers.get(&address) {
            return Some(*number as f64);
        }
        if self.held.len() >= self.limit
            && let Some(oldest) = self.held.pop_front()
        {
            self.numbers.remove(&self::address(&oldest));
            self.first = self.first.saturating_add(1);
        }
        let number = self.first.saturating_add(self.held.len() as u64);
        self.numbers.insert(address, number);
        self.held.push_back(token.clone());
        None
    }

    /// The token with this number, if it is held.
    pub fn get(&self, number: f64) -> Option<&Validated> {
        let place = (number as u64).checked_sub(self.first)?;
        self.held.get(usize::try_from(place).ok()?)
    }
}

fn address(token: &Validated) -> usize {
    token.payload().as_ptr().addr()
}
