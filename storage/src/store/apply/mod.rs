//! Applying log entries: one handler file for each kind of command.
//!
//! Every handler follows the same order: sizes, which need no state; the dedup window, where the
//! command has one; the state's own rules; loading; one write. Up to the write nothing has changed,
//! so a refusal leaves no trace. Nothing here reads a clock or a random number: time is the
//! batch's, made monotone.

mod create;
mod devices;
mod members;
mod send;

use super::tx::{Refusal, Tx};
use super::{Applied, Payload};
use crate::command::{Batch, Command, Outcome, Rejection, Reply};
use crate::limits::MAX_TTL_MS;
use crate::model::LogPosition;
use crate::{Fault, codec};

/// Applies one entry whose position was checked.
pub(super) fn entry(
    tx: &mut Tx<'_>,
    position: LogPosition,
    payload: Payload<'_>,
) -> Result<Applied, Fault> {
    let mut outcomes = Vec::new();
    match payload {
        Payload::Blank => {}
        Payload::Membership(bytes) => {
            tx.ledger.state.membership = Some((position, bytes.to_vec()));
        }
        Payload::Batch(bytes) => outcomes = batch(tx, codec::decode_batch(bytes)?)?,
    }
    tx.ledger.state.applied = Some(position);
    Ok(Applied { outcomes, effects: tx.publish() })
}

/// A hole in the log, or an entry applied twice, must not pass for a state.
pub(super) fn check_position(
    applied: Option<LogPosition>,
    position: LogPosition,
    gaps: bool,
) -> Result<(), Fault> {
    let next = applied.map_or(0, |applied| applied.index.saturating_add(1));
    let term = applied.map_or(0, |applied| applied.term);
    let follows = position.index == next || (gaps && position.index > next);
    if follows && position.term >= term {
        return Ok(());
    }
    let LogPosition { term: found_term, index: found } = position;
    Err(Fault::corrupt(format!(
        "entry {found} of term {found_term} can't be applied where {next} of term {term} or later \
         is due"
    )))
}

fn batch(tx: &mut Tx<'_>, batch: Batch) -> Result<Vec<Outcome>, Fault> {
    let now_ms = &mut tx.ledger.state.now_ms;
    *now_ms = batch.at_ms.max(*now_ms);
    batch.commands.into_iter().map(|command| self::command(tx, command)).collect()
}

fn command(tx: &mut Tx<'_>, command: Command) -> Result<Outcome, Fault> {
    match handle(tx, command) {
        Ok(reply) => {
            tx.expire_dedup()?;
            Ok(Ok(reply))
        }
        Err(Refusal::Rejected(rejection)) => Ok(Err(rejection)),
        Err(Refusal::Fault(fault)) => Err(fault),
    }
}

fn handle(tx: &mut Tx<'_>, command: Command) -> Result<Reply, Refusal> {
    match command {
        Command::Send { sender, target, client_id, attempt, body, content_type, ttl_ms } => {
            let content = send::Content { body, content_type, ttl_ms };
            send::send(tx, &sender, target, &client_id, attempt, content)
        }
        Command::CreateConversation {
            owner,
            kind,
            members,
            name,
            retention,
            client_id,
            attempt,
        } => {
            let wanted = create::Wanted::new(&owner, kind, members, name, retention)?;
            create::create(tx, &owner, wanted, &client_id, attempt)
        }
        Command::AddMembers { actor, conversation, members } => {
            members::add(tx, &actor, &conversation, members)
        }
        Command::RemoveMembers { actor, conversation, members } => {
            members::remove(tx, &actor, &conversation, members)
        }
        Command::Leave { user, conversation } => members::leave(tx, &user, &conversation),
        Command::DeleteConversation { conversation } => members::delete(tx, &conversation),
        Command::RegisterDevice { user, device, kind } => {
            devices::register(tx, &user, &device, kind)
        }
        Command::Acknowledge { user, device, seq } => devices::acknowledge(tx, &user, &device, seq),
    }
}

fn check_size(what: &str, size: usize, most: usize) -> Result<(), Rejection> {
    if size <= most {
        return Ok(());
    }
    Err(Rejection::TooLarge(format!("{what}: {size}, at most {most}")))
}

fn check_ttl(ttl_ms: Option<u64>) -> Result<(), Rejection> {
    match ttl_ms {
        Some(0) => Err(Rejection::BadRequest("a lifetime is at least one millisecond".to_owned())),
        Some(ttl_ms) if ttl_ms > MAX_TTL_MS => {
            Err(Rejection::BadRequest(format!("a lifetime is at most {MAX_TTL_MS} ms")))
        }
        _ => Ok(()),
    }
}
