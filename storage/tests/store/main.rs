//! The store through its public handle.

#[cfg(test)]
mod support;
#[cfg(test)]
mod model;
#[cfg(test)]
mod pausing;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod retries;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod against_model;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod tiers;
