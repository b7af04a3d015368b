//! What a node takes from its host: a wall clock, and threads that may wait for the disk.
//!
//! In the simulation all nodes run on one thread, in an order that a seed decides. The simulator
//! then sets the clock of the node whose turn it is, and what may wait is done in place.

use std::cell::Cell;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roost_storage::background;

thread_local! {
    static SIMULATED_MS: Cell<Option<u64>> = const { Cell::new(None) };
    static INSTALL_TIME: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// From now on this thread is simulated, and its clock stands here, in milliseconds since the Unix
/// epoch.
pub fn simulate(unix_ms: u64) {
    SIMULATED_MS.set(Some(unix_ms));
}

/// From now on a simulated node on this thread takes so long to install a snapshot.
pub fn simulate_install_time(time: Duration) {
    INSTALL_TIME.set(time);
}

/// Takes the time of the simulated installation of a snapshot.
pub(crate) async fn install_time() {
    let time = INSTALL_TIME.get();
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// Whether this thread is simulated.
pub fn is_simulated() -> bool {
    SIMULATED_MS.get().is_some()
}

/// The wall clock, in milliseconds since the Unix epoch; 0 before it.
pub fn unix_ms() -> u64 {
    SIMULATED_MS.get().unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Runs work where it may wait for the disk.
///
/// # Errors
/// The work's own; another one if the runtime ends meanwhile.
pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> io::Result<T>
where
    T: Send + 'static,
    E: Send + 'static,
    io::Error: From<E>,
{
    if is_simulated() {
        return Ok(work()?);
    }
    Ok(tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??)
}

/// The same for work that may take its time, at a lower priority than what clients wait for.
///
/// # Errors
/// The work's own; another one if the runtime ends meanwhile, or there is no thread for it.
pub async fn background<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> io::Result<T>
where
    T: Send + 'static,
    E: Send + 'static,
    io::Error: From<E>,
{
    if is_simulated() {
        return Ok(work()?);
    }
    blocking::<T, io::Error>(move || Ok(background::run(work)??)).await
}
