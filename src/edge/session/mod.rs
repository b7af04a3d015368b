//! One client's connection, from its first frame to the closing one, on any transport.
//!
//! Reading order: [`event`] (what happens and what is done about it), [`machine`] (the state
//! machine between the two, with [`window`] and [`acks`]), [`admit`] (what `connect` takes),
//! [`driver`] (the task that carries a session, with its [`timer`]).

pub(crate) mod event;
pub(crate) mod window;
pub(crate) mod acks;
pub(crate) mod machine;
pub(crate) mod admit;
mod timer;
pub(crate) mod driver;

#[cfg(test)]
mod tests;
