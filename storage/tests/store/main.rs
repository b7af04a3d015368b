//! The store through its public handle.

#[cfg(test)]
mod support;
#[cfg(test)]
mod commands;
