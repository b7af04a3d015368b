//! The protocol's types and codecs, from outside.

#[cfg(test)]
mod samples;

#[cfg(test)]
mod golden;

#[cfg(test)]
mod page_examples;

#[cfg(test)]
mod properties;
