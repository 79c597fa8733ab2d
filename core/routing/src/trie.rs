//! Longest prefixes of digits: one node per digit, all nodes in one block of memory.
//!
//! Own code instead of a library: ten children per node and at most fifteen steps make a look-up a handful of loads,
//! and one walk yields every prefix of the number, which least-cost routing needs.

/// No child.
const NONE: u32 = 0;
/// Bytes of a node.
pub(crate) const NODE_BYTES: usize = size_of::<Node>();

/// From prefixes of digits to values.
#[derive(Clone, Debug)]
pub(crate) struct DigitTrie<V> {
    nodes: Vec<Node>,
    values: Vec<V>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Children by digit; the root is nobody's child, so 0 means none.
    children: [u32; 10],
    /// The value's place, plus one.
    value: u32,
}

impl<V> Default for DigitTrie<V> {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], values: Vec::new() }
    }
}

impl<V> DigitTrie<V> {
    /// The value of this very prefix, made when it is missing. The prefix must be digits; others are skipped.
    pub(crate) fn entry(&mut self, prefix: &str, make: impl FnOnce() -> V) -> &mut V {
        let mut node = 0;
        for digit in digits(prefix) {
            let next = self.nodes[node].children[digit];
            node = if next == NONE {
                let made = self.nodes.len();
                // Bounded far below by the number of prefixes times fifteen.
                self.nodes[node].children[digit] = u32::try_from(made).unwrap_or(NONE);
                self.nodes.push(Node::default());
                made
            } else {
                next as usize
            };
        }
        if self.nodes[node].value == 0 {
            self.values.push(make());
            self.nodes[node].value = u32::try_from(self.values.len()).unwrap_or(0);
        }
        let place = self.nodes[node].value as usize - 1;
        &mut self.values[place]
    }

    /// The values of all prefixes of a number, the shortest first, each with the prefix's length.
    pub(crate) fn prefixes<'t, 'n>(
        &'t self,
        number: &'n str,
    ) -> impl Iterator<Item = (usize, &'t V)> + use<'t, 'n, V> {
        let mut node = Some(0);
        let mut remaining = digits(number);
        let mut length = 0;
        std::iter::from_fn(move || {
            while let Some(at) = node {
                let found =
                    self.nodes[at].value.checked_sub(1).map(|place| (length, &self.values[place as usize]));
                node = remaining
                    .next()
                    .map(|digit| self.nodes[at].children[digit])
                    .filter(|next| *next != NONE)
                    .map(|next| next as usize);
                length += 1;
                if found.is_some() {
                    return found;
                }
            }
            None
        })
    }

    /// The value of the longest prefix of a number, with its length.
    pub(crate) fn longest(&self, number: &str) -> Option<(usize, &V)> {
        self.prefixes(number).last()
    }

    /// How many prefixes have a value.
    pub(crate) fn prefixes_count(&self) -> usize {
        self.values.len()
    }

    /// Memory held, in bytes, not counting what the values own elsewhere.
    pub(crate) fn bytes(&self) -> usize {
        self.nodes.capacity() * NODE_BYTES + self.values.capacity() * size_of::<V>()
    }

    /// Gives back what growing left over.
    pub(crate) fn shrink(&mut self) {
        self.nodes.shrink_to_fit();
        self.values.shrink_to_fit();
    }
}

fn digits(text: &str) -> impl Iterator<Item = usize> {
    text.bytes().filter(u8::is_ascii_digit).map(|byte| usize::from(byte - b'0'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    proptest::proptest! {
        #[test]
        fn finds_what_a_plain_search_finds(
            prefixes in proptest::collection::vec("[0-9]{0,6}", 0..40),
            number in "[0-9]{0,15}",
        ) {
            let mut trie = DigitTrie::default();
            let mut plain = BTreeMap::new();
            for (value, prefix) in prefixes.iter().enumerate() {
                *trie.entry(prefix, || value) = value;
                plain.insert(prefix.clone(), value);
            }
            let mut expected: Vec<(usize, usize)> = plain
                .iter()
                .filter(|(prefix, _)| number.starts_with(prefix.as_str()))
                .map(|(prefix, value)| (prefix.len(), *value))
                .collect();
            expected.sort_unstable();
            let found: Vec<(usize, usize)> = trie.prefixes(&number).map(|(length, value)| (length, *value)).collect();
            assert_eq!(found, expected);
            assert_eq!(trie.longest(&number).map(|(length, value)| (length, *value)), expected.last().copied());
        }
    }
}
