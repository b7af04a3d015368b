//! How many files and sockets this process may have open.
//!
//! Each WebSocket is one. Most systems start a process with a low limit that it may raise by itself
//! up to a second one; what lies beyond is the administrator's to grant (`ulimit -n`,
//! `LimitNOFILE=`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many this process may have open now.
pub fn limit() -> usize {
    let most = getrlimit(Resource::Nofile).current;
    most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

/// Raises the limit as far as the process may, and says how far that is.
pub fn raise_limit() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // A system that refuses leaves the limit as it was, which is what the answer tells.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    limit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_never_lowers() {
        let before = limit();
        let raised = raise_limit();
        assert!(raised >= before && limit() == raised);
    }
}
