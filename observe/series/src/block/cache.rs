//! Pages of indexes that were read lately, bounded by bytes.
//!
//! Two generations: what is used moves to the young one; when that is half of the bound, the old one goes. That is as
//! good as a list in order of use here, and every step takes constant time.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A block and an offset in its file.
type Key = (u64, u64);
type Entry = (Arc<dyn Any + Send + Sync>, usize);

/// Pages by block and offset.
pub(crate) struct PageCache {
    bytes_max: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
    young_bytes: usize,
}

impl std::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageCache").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl PageCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, generations: Mutex::default() }
    }

    /// A page, from memory or by `read`, which also says how many bytes it takes.
    pub(crate) fn get<T: Any + Send + Sync, E>(
        &self,
        key: Key,
        read: impl FnOnce() -> Result<(T, usize), E>,
    ) -> Result<Arc<T>, E> {
        if let Some(page) = self.find(key).and_then(|page| page.downcast::<T>().ok()) {
            return Ok(page);
        }
        let (page, bytes) = read()?;
        let page = Arc::new(page);
        self.generations().insert(key, (Arc::clone(&page) as _, bytes), self.bytes_max);
        Ok(page)
    }

    /// Forgets all pages of a block.
    pub(crate) fn forget(&self, block: u64) {
        let mut generations = self.generations();
        let Generations { young, old, young_bytes } = &mut *generations;
        young.retain(|(of, _), (_, bytes)| {
            *young_bytes = young_bytes.saturating_sub(if *of == block { *bytes } else { 0 });
            *of != block
        });
        old.retain(|(of, _), _| *of != block);
    }

    fn find(&self, key: Key) -> Option<Arc<dyn Any + Send + Sync>> {
        let mut generations = self.generations();
        if let Some((page, _)) = generations.young.get(&key) {
            return Some(Arc::clone(page));
        }
        let entry = generations.old.remove(&key)?;
        let page = Arc::clone(&entry.0);
        generations.insert(key, entry, self.bytes_max);
        Some(page)
    }

    fn generations(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, key: Key, entry: Entry, bytes_max: usize) {
        self.young_bytes += entry.1;
        if let Some((_, replaced)) = self.young.insert(key, entry) {
            self.young_bytes = self.young_bytes.saturating_sub(replaced);
        }
        if self.young_bytes > bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let cache = PageCache::new(100);
        let mut reads = 0;
        let mut get = |offset: u64| {
            let page: Result<Arc<u64>, ()> = cache.get((1, offset), || {
                reads += 1;
                Ok((offset, 20))
            });
            assert_eq!(page.map(|page| *page), Ok(offset));
            reads
        };
        assert_eq!((get(1), get(1), get(2)), (1, 1, 2));
        for offset in 3..30 {
            get(offset);
            assert_eq!(get(1), i32::try_from(offset).expect("small"), "still there");
        }
        assert_eq!(get(2), 30, "read again");
        cache.forget(7);
        assert_eq!(get(2), 30);
        cache.forget(1);
        assert_eq!((get(1), get(2)), (31, 32), "read again");
    }
}
