//! What a command will cost, told before it is proposed.
//!
//! An entry is applied as a whole, between two checkpoints, so what it appends is in memory at
//! once. Whoever gathers commands into entries keeps that small by asking here; nothing but memory
//! depends on the answer, which is of this moment.

use super::View;
use crate::Fault;
use crate::command::{Command, Target};
use crate::model::ConversationId;

impl View<'_> {
    /// How many references a command would append to queues, about, if it were applied now. Whoever
    /// proposes closes an entry at
    /// [`TARGET_BATCH_REFERENCES`](crate::limits::TARGET_BATCH_REFERENCES), because an entry's
    /// references are in memory at once.
    ///
    /// # Errors
    /// A [`Fault`] of the cold tier.
    pub fn fan_out(&self, command: &Command) -> Result<usize, Fault> {
        Ok(match command {
            Command::Send { target: Target::User(_), .. } => 2,
            Command::Send { target: Target::Conversation(id), .. } => self.member_count(id)?,
            Command::CreateConversation { members, .. } => members.len() + 1,
            Command::AddMembers { conversation, members, .. }
            | Command::RemoveMembers { conversation, members, .. } => {
                (self.member_count(conversation)? + 1).saturating_mul(members.len())
            }
            Command::Leave { conversation, .. } | Command::DeleteConversation { conversation } => {
                self.member_count(conversation)?
            }
            Command::RegisterDevice { .. } | Command::Acknowledge { .. } => 0,
        })
    }

    fn member_count(&self, id: &ConversationId) -> Result<usize, Fault> {
        Ok(self.members(id)?.len())
    }
}
