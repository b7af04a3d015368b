//! `roost send`: one message.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args};
use roost_client::protocol::reply::Sent;
use roost_client::protocol::request::SendMessage;
use roost_client::protocol::{Body, CloseCode, CompactString, Target as Recipient};
use roost_client::{Calls as _, Client, ClientError, ClientOptions};
use roost_storage::limits::MAX_BODY_BYTES;
use roost_storage::model::{ClientId, ConversationId, DeviceId, UserId};
use tokio::time::{Instant, sleep};

use super::output::{note, say, time};
use super::target::{Link, Target};

/// The device that sends: not the one of `roost tail`, which would lose its connection to it.
const DEVICE: &str = "cli-send";
/// How long sending may take, with all repetitions.
const PATIENCE: Duration = Duration::from_secs(30);

/// Send a message
///
/// Prints its conversation, its sequence there, and its time.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("recipient").required(true))]
#[command(after_help = "\
Examples:
  roost send --as alice --to bob \"hi\"
  roost send --as alice --conversation g-0-1 \"hi all\"
  roost send --as alice --to bob --client-id order-17 -     the text from stdin, stored once")]
pub(crate) struct Send {
    /// Who sends
    #[arg(long = "as", value_name = "USER")]
    sender: UserId,
    /// The user to send to, in the direct conversation of the two
    #[arg(long, value_name = "USER", group = "recipient")]
    to: Option<UserId>,
    /// The conversation to send to
    #[arg(long, value_name = "ID", group = "recipient")]
    conversation: Option<ConversationId>,
    /// The sender's own name for this message: sent again under the same name, it is stored once
    /// [default: a random one]
    #[arg(long, value_name = "ID")]
    client_id: Option<ClientId>,
    /// The text; - reads it from stdin
    text: String,
    #[command(flatten)]
    link: Link,
    #[command(flatten)]
    target: Target,
}

impl Send {
    /// Sends the message.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let recipient = match (&self.to, &self.conversation) {
            (Some(user), _) => Recipient::User(user.as_str().into()),
            (None, Some(conversation)) => Recipient::Conversation(conversation.as_str().into()),
            (None, None) => bail!("--to or --conversation is needed"),
        };
        let client_id = match &self.client_id {
            Some(id) => id.as_str().into(),
            None => CompactString::new(format!("cli-{:032x}", rand::random::<u128>())),
        };
        let body = body(self.text)?;
        let message =
            SendMessage { target: recipient, client_id, body, content_type: None, ttl_ms: None };
        let mut options =
            self.target.client_options(&self.link, &self.sender, &DeviceId::new(DEVICE)?)?;
        options.window = Some(0);
        options.auto_ack = None;
        options.call_timeout = PATIENCE;
        let sent = send(&options, &message).await?;
        say!("{} {} {}", sent.conversation, sent.seq, time(sent.at_ms));
        // Without a name given, only this command's own repetition can have been first.
        if sent.duplicate && self.client_id.is_some() {
            note!("it had been sent before, under the same --client-id");
        }
        Ok(())
    }
}

/// Sends until it is acknowledged. Another `roost send` of the same user takes the device over;
/// then it is this one's turn again, which repeats no message, since the client id stays.
async fn send(options: &ClientOptions, message: &SendMessage) -> Result<Sent, ClientError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sent = async {
            let (client, _items) = Client::connect(options.clone()).await?;
            let sent = client.send(message.clone()).await;
            client.close().await;
            sent
        };
        match sent.await {
            Err(ClientError::Closed(reason) | ClientError::Lost(reason))
                if reason.code == Some(CloseCode::Replaced) && Instant::now() < deadline =>
            {
                sleep(Duration::from_millis(rand::random_range(5..100))).await;
            }
            other => return other,
        }
    }
}

fn body(text: String) -> anyhow::Result<Body> {
    let bytes = match text.as_str() {
        "-" => {
            let mut bytes = Vec::new();
            let most = MAX_BODY_BYTES as u64 + 1;
            std::io::stdin()
                .lock()
                .take(most)
                .read_to_end(&mut bytes)
                .context("cannot read stdin")?;
            bytes
        }
        _ => text.into_bytes(),
    };
    if bytes.len() > MAX_BODY_BYTES {
        bail!("a message has at most {MAX_BODY_BYTES} bytes");
    }
    Ok(bytes.into())
}
