//! Sends that do not wait for each other: more than a small node takes in at a time, and in an order
//! that must hold.

use std::collections::BTreeMap;

use roost_protocol::OkBody;

use super::Client;
use crate::connection::Connection;
use crate::record::Caller;

impl Client {
    /// Sends several new messages before the first one is answered.
    pub(super) async fn burst(&mut self, connection: &mut Connection, who: Caller) -> bool {
        let count = self.random.within(2, 8);
        let letters: Vec<_> = (0..count).map(|_| self.new_letter()).collect();
        let mut calls = Vec::new();
        let mut operations = Vec::new();
        for letter in &letters {
            let (op, operation) = self.sending(letter);
            calls.push(self.all.record.begin(who, op));
            operations.push(operation);
        }
        let results = connection.calls(operations).await;
        // The sends of one connection take effect in the order in which they were sent.
        let mut newest: BTreeMap<String, u64> = BTreeMap::new();
        let mut well = true;
        for ((letter, call), result) in letters.into_iter().zip(calls).zip(results) {
            if let Ok(OkBody::Sent(sent)) = &result {
                let before = newest.insert(sent.conversation.to_string(), sent.seq);
                if before.is_some_and(|before| before >= sent.seq) {
                    let what = format!("call {call} overtook one that its connection sent before");
                    self.all.record.violate("order of sends", what);
                }
            }
            well &= self.sent(who, call, letter, result);
        }
        well
    }
}
