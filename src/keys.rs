//! Keys and certificates. (Skeleton.)
