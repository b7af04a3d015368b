//! Members that come and go: a client adds users to a group, removes some, or leaves.

use roost_checker::history::{Answer, Op};
use roost_protocol::request::{ChangeMembers, Leave};
use roost_protocol::{CompactString, OkBody, Operation};

use super::Client;
use crate::connection::Connection;
use crate::record::Caller;

impl Client {
    /// Changes the members of some group, its own or not.
    pub(super) async fn change_members(
        &mut self,
        connection: &mut Connection,
        who: Caller,
    ) -> bool {
        let groups = self.all.groups.lock().clone();
        if groups.is_empty() {
            return true;
        }
        let (conversation, _) = self.random.pick(&groups).clone();
        let id = CompactString::new(&conversation);
        let user = self.user.clone();
        let mut users: Vec<String> = self.all.users.iter().map(|(user, _)| user.clone()).collect();
        self.random.shuffle(&mut users);
        users.truncate(usize::try_from(self.random.within(1, 2)).expect("a small number"));
        let members = users.iter().map(CompactString::new).collect();
        let (op, operation, joins) = match self.random.within(0, 9) {
            0..5 => (
                Op::AddMembers { user, conversation: conversation.clone(), members: users.clone() },
                Operation::AddMembers(ChangeMembers { conversation: id, members }),
                true,
            ),
            5..8 => (
                Op::RemoveMembers {
                    user,
                    conversation: conversation.clone(),
                    members: users.clone(),
                },
                Operation::RemoveMembers(ChangeMembers { conversation: id, members }),
                false,
            ),
            _ => {
                users = vec![user.clone()];
                let op = Op::Leave { user, conversation: conversation.clone() };
                (op, Operation::Leave(Leave { conversation: id }), false)
            }
        };
        let call = self.all.record.begin(who, op);
        match connection.call(operation).await {
            Ok(OkBody::Members(members)) => {
                self.applied = self.applied.max(members.applied);
                self.note_members(&conversation, &users, joins);
                self.all.record.ok(who, call, Answer::Members { count: members.members });
                true
            }
            result => self.failed(who, call, result),
        }
    }

    /// What clients believe of a group; another change may have come between.
    fn note_members(&self, conversation: &str, users: &[String], joins: bool) {
        let mut groups = self.all.groups.lock();
        let Some((_, members)) = groups.iter_mut().find(|(id, _)| id == conversation) else {
            return;
        };
        members.retain(|member| !users.contains(member));
        if joins {
            members.extend_from_slice(users);
        }
    }
}
