//! TLS 1.3's protection of records (RFC 8446, 5), once the library has made the handshake: decrypts to where the bytes are wanted
//! and encrypts where they are sent from, for which the library's own needs two allocations and three copies a record.
//!
//! Who the peer is and what the keys are remains the library's: it also derives those that follow a key update.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::IoSlice;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, HandshakeType, InvalidMessage,
    PeerMisbehaved, SupportedCipherSuite,
};

/// Bytes before a record's content: its type, a version that says nothing any more, the length (RFC 8446, 5.1).
const HEADER: usize = 5;
/// Bytes that a record may hold of content (5.1).
const MAX_CONTENT: usize = 1 << 14;
/// Bytes that may follow a record's header: content, its type, padding and tag (5.2).
const MAX_PROTECTED: usize = MAX_CONTENT + 256;
/// Bytes of a record at most.
pub const MAX_RECORD: usize = HEADER + MAX_PROTECTED;
/// Bytes that authenticate a record, whatever the cipher suite.
const TAG: usize = 16;
/// Bytes of content that are taken to be sent at once.
const MAX_TAKEN: usize = 4 * MAX_CONTENT;
/// Bytes of a handshake message's type and length (4).
const MESSAGE_HEADER: usize = 4;
/// Bytes of a handshake message, such as a ticket, that are put together from records.
const MAX_MESSAGE: usize = 0xffff;
/// Records in a row that bring no data: tickets, key updates and what says nothing at all.
const MAX_FRUITLESS: u8 = 32;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// What is wrong with what the peer sent, and the alert that tells it so; none for an alert of its own.
#[derive(Debug)]
pub struct Fault {
    /// What is wrong.
    pub error: Error,
    /// What the peer is to be told, with [`Records::seal_alert`].
    pub alert: Option<AlertDescription>,
}

impl Fault {
    fn new(alert: AlertDescription, error: impl Into<Error>) -> Self {
        Self { error: error.into(), alert: Some(alert) }
    }

    fn unexpected(got: u8) -> Self {
        let expect_types = vec![ContentType::ApplicationData];
        let error = Error::InappropriateMessage { expect_types, got_type: got.into() };
        Self::new(AlertDescription::UnexpectedMessage, error)
    }
}

/// Where a whole record at the beginning of `bytes` ends; `None` while there is none.
///
/// # Errors
/// Where no record is, or one that is longer than may be.
pub fn record_end(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    match *bytes {
        [APPLICATION_DATA, _, _, a, b, ..] => {
            let length = usize::from(u16::from_be_bytes([a, b]));
            if length > MAX_PROTECTED {
                return Err(Fault::new(AlertDescription::RecordOverflow, Error::PeerSentOversizedRecord));
            }
            Ok(Some(HEADER + length).filter(|end| *end <= bytes.len()))
        }
        [] | [APPLICATION_DATA, ..] => Ok(None),
        [other, ..] => Err(Fault::unexpected(other)),
    }
}

/// Bytes of room that a whole record's content needs to be decrypted into.
pub fn room(record: &[u8]) -> usize {
    record.len().saturating_sub(HEADER + TAG)
}

/// One direction's keys.
struct Keys {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Keys {
    fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let (sequence, secrets) = secrets;
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("a cipher suite that records are not protected with here".into())),
        };
        let unfit = || Error::General("a key that does not fit its cipher suite".into());
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| unfit())?;
        let iv = iv.as_ref().try_into().map_err(|_| unfit())?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// The nonce of the record in turn (5.3). No two are the same: sequence numbers only grow, and a new key begins anew.
    fn nonce(&self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Derives the keys that follow.
enum Schedule {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// One end's protection of what it sends and receives.
pub struct Records {
    sealing: Keys,
    opening: Keys,
    schedule: Schedule,
    /// Records that may be sent with one key.
    limit: u64,
    /// The beginning of a handshake message that goes on in the next record.
    message: Vec<u8>,
    /// Records in a row that have brought no data.
    fruitless: u8,
    ended: bool,
    says_no_more: bool,
    /// New keys are asked for, before any more data (RFC 8446, 4.6.3).
    owes_update: bool,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Records {
    /// Goes on where the library's client has ended its handshake.
    ///
    /// # Errors
    /// A cipher suite of another version of TLS.
    pub fn client(
        (secrets, kernel): (ExtractedSecrets, KernelConnection<ClientConnectionData>),
    ) -> Result<Self, Error> {
        let suite = kernel.negotiated_cipher_suite();
        Self::new(secrets, suite, Schedule::Client(kernel))
    }

    /// Goes on where the library's server has ended its handshake.
    ///
    /// # Errors
    /// As [`Records::client`].
    pub fn server(
        (secrets, kernel): (ExtractedSecrets, KernelConnection<ServerConnectionData>),
    ) -> Result<Self, Error> {
        let suite = kernel.negotiated_cipher_suite();
        Self::new(secrets, suite, Schedule::Server(kernel))
    }

    fn new(secrets: ExtractedSecrets, suite: SupportedCipherSuite, schedule: Schedule) -> Result<Self, Error> {
        let SupportedCipherSuite::Tls13(suite) = suite else {
            return Err(Error::General("records of TLS 1.2 are for the library".into()));
        };
        Ok(Self {
            sealing: Keys::new(secrets.tx)?,
            opening: Keys::new(secrets.rx)?,
            schedule,
            limit: suite.common.confidentiality_limit,
            message: Vec::new(),
            fruitless: 0,
            ended: false,
            says_no_more: false,
            owes_update: false,
        })
    }

    /// Whether the peer has said that nothing follows.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Decrypts a whole record into `into`; how many bytes of data it held.
    ///
    /// # Errors
    /// What is wrong with it. Nothing of the connection can be trusted any more.
    ///
    /// # Panics
    /// If `record` has no whole header, or `into` less than [`room`] for it.
    pub fn open(&mut self, record: &[u8], into: &mut [u8]) -> Result<usize, Fault> {
        let (header, protected) = record.split_at(HEADER);
        let undecryptable = || Fault::new(AlertDescription::BadRecordMac, Error::DecryptError);
        let (text, tag) = protected.split_last_chunk::<TAG>().ok_or_else(undecryptable)?;
        let content = &mut into[..text.len()];
        let keys = &mut self.opening;
        keys.key
            .open_separate_gather(keys.nonce(), Aad::from(header), text, tag, content)
            .map_err(|_| undecryptable())?;
        keys.sequence += 1;
        // The type is the last byte that is not padding.
        let Some(end) = content.iter().rposition(|byte| *byte != 0) else {
            return Err(Fault::new(AlertDescription::UnexpectedMessage, PeerMisbehaved::IllegalTlsInnerPlaintext));
        };
        if end > MAX_CONTENT {
            return Err(Fault::new(AlertDescription::RecordOverflow, Error::PeerSentOversizedRecord));
        }
        let kind = content[end];
        if kind != HANDSHAKE && !self.message.is_empty() {
            return Err(Fault::unexpected(kind));
        }
        match kind {
            APPLICATION_DATA if end > 0 => {
                self.fruitless = 0;
                return Ok(end);
            }
            APPLICATION_DATA => {}
            HANDSHAKE => self.handshake(&content[..end])?,
            ALERT => self.alert(&content[..end])?,
            other => return Err(Fault::unexpected(other)),
        }
        self.fruitless += 1;
        if self.fruitless > MAX_FRUITLESS && !self.ended {
            let error = Error::General("too many records in a row without data".into());
            return Err(Fault::new(AlertDescription::UnexpectedMessage, error));
        }
        Ok(0)
    }

    fn alert(&mut self, content: &[u8]) -> Result<(), Fault> {
        let &[level @ (WARNING | FATAL), description] = content else {
            return Err(Fault::new(AlertDescription::DecodeError, InvalidMessage::MessageTooShort));
        };
        match description {
            CLOSE_NOTIFY => self.ended = true,
            // Says nothing by itself (6.1).
            USER_CANCELED if level == WARNING => {}
            other => return Err(Fault { error: Error::AlertReceived(other.into()), alert: None }),
        }
        Ok(())
    }

    /// Takes handshake messages, which may begin and end within records (5.1).
    fn handshake(&mut self, content: &[u8]) -> Result<(), Fault> {
        if content.is_empty() {
            return Err(Fault::new(AlertDescription::UnexpectedMessage, InvalidMessage::InvalidEmptyPayload));
        }
        self.message.extend_from_slice(content);
        let mut messages = std::mem::take(&mut self.message);
        let mut at = 0;
        while let [kind, a, b, c, rest @ ..] = &messages[at..] {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if length > MAX_MESSAGE {
                return Err(Fault::new(AlertDescription::DecodeError, InvalidMessage::HandshakePayloadTooLarge));
            }
            let Some(body) = rest.get(..length) else { break };
            self.take_message(*kind, body, rest.len() == length)?;
            at += MESSAGE_HEADER + length;
        }
        if at < messages.len() {
            messages.drain(..at);
            self.message = messages;
        }
        Ok(())
    }

    fn take_message(&mut self, kind: u8, body: &[u8], is_last: bool) -> Result<(), Fault> {
        match kind {
            // Nothing is resumed.
            NEW_SESSION_TICKET if matches!(self.schedule, Schedule::Client(_)) => return Ok(()),
            KEY_UPDATE => {}
            other => {
                let expect_types = vec![HandshakeType::KeyUpdate];
                let error = Error::InappropriateHandshakeMessage { expect_types, got_type: other.into() };
                return Err(Fault::new(AlertDescription::UnexpectedMessage, error));
            }
        }
        let is_requested = match body {
            [0] => false,
            [1] => true,
            [_] => return Err(Fault::new(AlertDescription::IllegalParameter, InvalidMessage::InvalidKeyUpdate)),
            _ => return Err(Fault::new(AlertDescription::DecodeError, InvalidMessage::InvalidKeyUpdate)),
        };
        // What follows in this record would be of the keys before (5.1).
        if !is_last {
            let error = PeerMisbehaved::KeyEpochWithPendingFragment;
            return Err(Fault::new(AlertDescription::UnexpectedMessage, error));
        }
        let internal = |e| Fault::new(AlertDescription::InternalError, e);
        let secrets = match &mut self.schedule {
            Schedule::Client(kernel) => kernel.update_rx_secret(),
            Schedule::Server(kernel) => kernel.update_rx_secret(),
        };
        self.opening = secrets.and_then(Keys::new).map_err(internal)?;
        self.owes_update |= is_requested;
        Ok(())
    }

    /// Encrypts as much of `parts` as is taken at once, behind what `wire` holds; how many bytes that is.
    ///
    /// # Errors
    /// None that the peer or the caller could bring about.
    pub fn seal(&mut self, parts: &[IoSlice<'_>], wire: &mut Vec<u8>) -> Result<usize, Error> {
        let mut parts = parts.iter().map(|part| &**part).filter(|part| !part.is_empty());
        let mut part: &[u8] = parts.next().unwrap_or_default();
        let mut taken = 0;
        while !part.is_empty() && taken < MAX_TAKEN {
            // With one record to spare for the update itself.
            if self.owes_update || self.sealing.sequence + 1 >= self.limit {
                self.update_sealing(wire)?;
            }
            self.record(APPLICATION_DATA, wire, |wire| {
                let mut room = MAX_CONTENT;
                while !part.is_empty() && room > 0 {
                    let (now, later) = part.split_at(part.len().min(room));
                    wire.extend_from_slice(now);
                    (room, taken) = (room - now.len(), taken + now.len());
                    part = if later.is_empty() { parts.next().unwrap_or_default() } else { later };
                }
            })?;
        }
        Ok(taken)
    }

    /// Says that nothing follows, once.
    ///
    /// # Errors
    /// As [`Records::seal`].
    pub fn seal_end(&mut self, wire: &mut Vec<u8>) -> Result<(), Error> {
        self.say(WARNING, CLOSE_NOTIFY, wire)
    }

    /// Says what was wrong; nothing follows.
    ///
    /// # Errors
    /// As [`Records::seal`].
    pub fn seal_alert(&mut self, alert: AlertDescription, wire: &mut Vec<u8>) -> Result<(), Error> {
        self.say(FATAL, alert.into(), wire)
    }

    fn say(&mut self, level: u8, description: u8, wire: &mut Vec<u8>) -> Result<(), Error> {
        if std::mem::replace(&mut self.says_no_more, true) {
            return Ok(());
        }
        self.record(ALERT, wire, |wire| wire.extend_from_slice(&[level, description]))
    }

    /// Announces new keys, and takes them into use (4.6.3).
    pub fn update_sealing(&mut self, wire: &mut Vec<u8>) -> Result<(), Error> {
        const UPDATE_NOT_REQUESTED: u8 = 0;
        self.record(HANDSHAKE, wire, |wire| wire.extend_from_slice(&[KEY_UPDATE, 0, 0, 1, UPDATE_NOT_REQUESTED]))?;
        let secrets = match &mut self.schedule {
            Schedule::Client(kernel) => kernel.update_tx_secret(),
            Schedule::Server(kernel) => kernel.update_tx_secret(),
        };
        self.sealing = Keys::new(secrets?)?;
        self.owes_update = false;
        Ok(())
    }

    /// Puts one record behind what `wire` holds, of the content that `write` puts there.
    pub fn record(&mut self, kind: u8, wire: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        let start = wire.len();
        wire.extend_from_slice(&[APPLICATION_DATA, 3, 3, 0, 0]);
        write(wire);
        wire.push(kind);
        let (header, content) = wire[start..].split_at_mut(HEADER);
        // Not above `MAX_PROTECTED`, by how much is written.
        header[3..].copy_from_slice(&((content.len() + TAG) as u16).to_be_bytes());
        let keys = &mut self.sealing;
        let tag = keys.key.seal_in_place_separate_tag(keys.nonce(), Aad::from(&*header), content);
        let tag = tag.map_err(|_| Error::EncryptError)?;
        keys.sequence += 1;
        wire.extend_from_slice(tag.as_ref());
        Ok(())
    }
}
