//! The edge: listeners, sessions, HTTP. (Skeleton.)
