//! A bounded store: what was used lately stays, the rest goes.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations of entries, each of half the budget. What is used moves to the young one; when
/// that is full, the old one is dropped and the young one becomes old. An entry that is used at
/// least once in half a budget of new ones stays.
#[derive(Debug)]
pub struct Shelf<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    young_cost: usize,
    half: usize,
}

impl<K: Hash + Eq, V: Clone> Shelf<K, V> {
    /// A shelf of this budget, in the unit of the costs.
    pub fn new(budget: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_cost: 0, half: budget / 2 }
    }

    /// The entry of this key.
    pub fn get(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, (value, cost)) = self.old.remove_entry(key)?;
        self.put(key, value.clone(), cost);
        Some(value)
    }

    /// Keeps an entry, in place of one with the same key. What costs more than half the budget is
    /// not kept.
    pub fn put(&mut self, key: K, value: V, cost: usize) {
        self.remove(&key);
        if cost > self.half {
            return;
        }
        if self.young_cost.saturating_add(cost) > self.half {
            self.old = std::mem::take(&mut self.young);
            self.young_cost = 0;
        }
        self.young_cost = self.young_cost.saturating_add(cost);
        self.young.insert(key, (value, cost));
    }

    /// Forgets an entry.
    pub fn remove(&mut self, key: &K) {
        if let Some((_, cost)) = self.young.remove(key) {
            self.young_cost = self.young_cost.saturating_sub(cost);
        }
        self.old.remove(key);
    }

    /// What is kept costs this much.
    pub fn cost(&self) -> usize {
        self.old.values().fold(self.young_cost, |sum, (_, cost)| sum.saturating_add(*cost))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut shelf = Shelf::new(20);
        shelf.put("used", 1, 2);
        shelf.put("idle", 2, 2);
        for number in 0..50 {
            shelf.put("filler", number, 2);
            let key: &str = Box::leak(format!("f{number}").into_boxed_str());
            shelf.put(key, number, 2);
            assert_eq!(shelf.get(&"used"), Some(1), "{number}");
        }
        assert_eq!(shelf.get(&"idle"), None);
        assert_eq!(shelf.get(&"f49"), Some(49));
        shelf.remove(&"used");
        assert_eq!(shelf.get(&"used"), None);
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let mut shelf = Shelf::new(20);
        shelf.put("a", 1, 11);
        assert_eq!((shelf.get(&"a"), shelf.cost()), (None, 0));
        shelf.put("a", 2, 10);
        assert_eq!((shelf.get(&"a"), shelf.cost()), (Some(2), 10));
    }

    proptest! {
        #[test]
        fn the_budget_holds(steps in proptest::collection::vec((0_u8..20, 0_usize..30, 0_u8..3), 0..200)) {
            let mut shelf = Shelf::new(40);
            for (key, cost, step) in steps {
                match step {
                    0 => shelf.put(key, cost, cost),
                    1 => prop_assert!(shelf.get(&key).is_none_or(|value| value < 30)),
                    _ => { shelf.remove(&key); prop_assert_eq!(shelf.get(&key), None); }
                }
                prop_assert!(shelf.cost() <= 40, "{}", shelf.cost());
            }
        }
    }
}
