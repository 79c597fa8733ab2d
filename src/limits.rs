//! What the system allows this process: every call takes descriptors, and the usual soft limit is a thousand.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one; returns what is allowed now.
/// A system that refuses keeps its limit: the relay then refuses calls beyond it, with a reason.
#[must_use]
pub fn raise_open_files() -> Option<u64> {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    if limits.current != limits.maximum {
        let _kept_when_refused = setrlimit(Resource::Nofile, raised);
    }
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_reaches_the_hard_one() {
        let allowed = raise_open_files();
        assert_eq!(allowed, getrlimit(Resource::Nofile).maximum);
    }
}
