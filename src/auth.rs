//! Tokens. (Skeleton.)
