//! The library's side of a session: its handshake, and all of TLS 1.2.

use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, InvalidMessage, ProtocolVersion, ServerConfig};

use super::records::Records;

/// Bytes of a record's header, and what TLS 1.2 allows behind it (RFC 5246, 6.2.3).
const HEADER: usize = 5;
const MAX_PROTECTED: usize = (1 << 14) + 2048;
/// Bytes that a handshake message in many records may take before it is whole: what the library takes of one.
const MAX_JOINED: usize = 0xffff + HEADER + MAX_PROTECTED;
/// Bytes of content that are taken to be sent at once, and what a record adds to its content at most.
const MAX_TAKEN: usize = 1 << 14;
const MAX_OVERHEAD: usize = 256;

/// A TLS connection that is to begin, in either role.
pub struct Handshake {
    side: Side,
    /// What is there of the peer's.
    incoming: Vec<u8>,
    /// How many bytes of that have been shown to the library. It is shown one record after the other, so that it has none of those that
    /// follow the handshake; and what it was shown it must be shown again, until it is done with it.
    shown: usize,
    ended: bool,
    says_no_more: bool,
}

enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// The same for either role, whose types differ.
macro_rules! either {
    ($side:expr, $connection:ident => $do:expr) => {
        match $side {
            Side::Client($connection) => $do,
            Side::Server($connection) => $do,
        }
    };
}

/// What was agreed on in a handshake, and with whom.
#[derive(Debug, Default)]
pub struct Agreed {
    /// The application protocol (RFC 7301).
    pub alpn: Option<Box<[u8]>>,
    /// The peer's certificates, its own first; none where it showed none.
    pub peer_certificates: Vec<CertificateDer<'static>>,
}

/// How a session stands after a step.
enum Step {
    /// There is more to do at once.
    Again,
    /// Only more of the peer's bytes help.
    Blocked,
    /// The handshake is over; what follows waits for more of the peer's bytes.
    Done,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl Handshake {
    /// Calls a server by this name. `config` must let secrets be extracted: records are protected here, not by the library.
    ///
    /// # Errors
    /// A configuration that does not fit.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        extractable(config.enable_secret_extraction)?;
        let connection = UnbufferedClientConnection::new(config, name)?;
        Ok(Self::new(Side::Client(Box::new(connection))))
    }

    /// Answers a client. `config` must let secrets be extracted: see [`Handshake::client`].
    ///
    /// # Errors
    /// A configuration that does not fit.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        extractable(config.enable_secret_extraction)?;
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(Side::Server(Box::new(connection))))
    }

    fn new(side: Side) -> Self {
        Self { side, incoming: Vec::new(), shown: 0, ended: false, says_no_more: false }
    }

    /// Takes in bytes of the peer's.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
    }

    /// Whether bytes are there that nobody has looked at.
    pub(super) fn has_more(&self) -> bool {
        self.incoming.len() > self.shown
    }

    fn state(&self) -> &CommonState {
        either!(&self.side, connection => connection)
    }

    pub(super) fn is_server(&self) -> bool {
        matches!(self.side, Side::Server(_))
    }

    pub(super) fn is_tls13(&self) -> bool {
        self.state().protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Whether the peer has said that nothing follows.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn agreed(&self) -> Agreed {
        let state = self.state();
        Agreed {
            alpn: state.alpn_protocol().map(Into::into),
            peer_certificates: state.peer_certificates().unwrap_or_default().to_vec(),
        }
    }

    /// Hands over what follows a handshake of TLS 1.3: the records, and those bytes of the peer's that are there.
    ///
    /// # Errors
    /// A configuration that does not let it.
    pub fn into_records(self) -> Result<(Records, Vec<u8>), Error> {
        let records = match self.side {
            Side::Client(connection) => Records::client(connection.dangerous_into_kernel_connection()?),
            Side::Server(connection) => Records::server(connection.dangerous_into_kernel_connection()?),
        };
        Ok((records?, self.incoming))
    }

    /// Has two ends agree in memory, where no socket is between them: for tests and measurements. A server
    /// that sends tickets is not for it: they would be lost.
    ///
    /// # Errors
    /// What either finds wrong with the other.
    pub fn agree(mut client: Self, mut server: Self) -> Result<(Records, Records), Error> {
        let (mut over, mut data) = ((false, false), Vec::new());
        while over != (true, true) {
            let mut wire = Vec::new();
            over.0 = client.advance(&mut wire, &mut data)?;
            server.receive(&std::mem::take(&mut wire));
            over.1 = server.advance(&mut wire, &mut data)?;
            client.receive(&wire);
        }
        Ok((client.into_records()?.0, server.into_records()?.0))
    }

    /// Goes on with what is there of the peer's; what is to be sent goes to `wire`, data of TLS 1.2 to `data`. Whether the handshake is
    /// over.
    ///
    /// # Errors
    /// What is wrong with what the peer sent; the alert is in `wire`, where the library has one.
    pub fn advance(&mut self, wire: &mut Vec<u8>, data: &mut Vec<u8>) -> Result<bool, Error> {
        loop {
            match self.step(wire, data) {
                Ok(Step::Again) => {}
                Ok(Step::Done) if self.is_tls13() => return Ok(true),
                Ok(step) => match record_end(&self.incoming[self.shown..]) {
                    Some(end) if !self.ended => self.shown += end,
                    _ if self.incoming.len() > MAX_JOINED => {
                        return Err(InvalidMessage::HandshakePayloadTooLarge.into());
                    }
                    _ => return Ok(matches!(step, Step::Done)),
                },
                Err(e) => {
                    // What it has to send still, the alert last: it goes no further into what is there before that.
                    while self.state().wants_write() {
                        self.step(wire, data)?;
                    }
                    return Err(e);
                }
            }
        }
    }

    fn step(&mut self, wire: &mut Vec<u8>, data: &mut Vec<u8>) -> Result<Step, Error> {
        let (shown, ended) = (&mut self.incoming[..self.shown], &mut self.ended);
        let (discard, step) =
            either!(&mut self.side, connection => take(connection.process_tls_records(shown), wire, data, ended));
        self.shown -= discard;
        match discard == self.incoming.len() {
            true => self.incoming = Vec::new(),
            false => drop(self.incoming.drain(..discard)),
        }
        match step? {
            Step::Done if self.state().is_handshaking() => Ok(Step::Blocked),
            step => Ok(step),
        }
    }

    /// Encrypts as much of `parts` as is taken at once; how many bytes that is. For TLS 1.2.
    ///
    /// # Errors
    /// The session is over.
    pub(super) fn seal(&mut self, parts: &[IoSlice<'_>], wire: &mut Vec<u8>) -> Result<usize, Error> {
        let mut content = Vec::new();
        for part in parts {
            let room = MAX_TAKEN - content.len();
            content.extend_from_slice(&part[..part.len().min(room)]);
        }
        let shown = &mut self.incoming[..self.shown];
        put(wire, content.len(), |room| {
            either!(&mut self.side, connection => match connection.process_tls_records(shown).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.encrypt(&content, room).ok(),
                _ => None,
            })
        })?;
        Ok(content.len())
    }

    /// Says that nothing follows, once. For TLS 1.2.
    ///
    /// # Errors
    /// As [`Handshake::seal`].
    pub(super) fn seal_end(&mut self, wire: &mut Vec<u8>) -> Result<(), Error> {
        if std::mem::replace(&mut self.says_no_more, true) {
            return Ok(());
        }
        let shown = &mut self.incoming[..self.shown];
        put(wire, 0, |room| {
            either!(&mut self.side, connection => match connection.process_tls_records(shown).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(room).ok(),
                _ => None,
            })
        })
    }
}

/// Whether a configuration allows for what follows its handshakes.
fn extractable(is_enabled: bool) -> Result<(), Error> {
    let refused = || Error::General("a configuration that does not let secrets be extracted".into());
    is_enabled.then_some(()).ok_or_else(refused)
}

/// Puts a record behind what `wire` holds: `write` has room for content of that length, and says how much it used.
fn put(wire: &mut Vec<u8>, content: usize, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Result<(), Error> {
    let start = wire.len();
    wire.resize(start + content + MAX_OVERHEAD, 0);
    let written = write(&mut wire[start..]);
    wire.truncate(start + written.unwrap_or(0));
    written.map(|_| ()).ok_or(Error::EncryptError)
}

/// Where the first record of `bytes` ends, once it is whole. One that cannot be, by its header, is shown as it is: the library is to say
/// at once what is wrong.
fn record_end(bytes: &[u8]) -> Option<usize> {
    let &[kind, major, _, a, b, ..] = bytes else { return None };
    let length = usize::from(u16::from_be_bytes([a, b]));
    // From change_cipher_spec to heartbeat.
    if !(20..=24).contains(&kind) || major != 3 || length > MAX_PROTECTED {
        return Some(bytes.len());
    }
    Some(HEADER + length).filter(|end| *end <= bytes.len())
}

/// Does what the library asks for.
fn take<D>(
    status: UnbufferedStatus<'_, '_, D>,
    wire: &mut Vec<u8>,
    data: &mut Vec<u8>,
    ended: &mut bool,
) -> (usize, Result<Step, Error>) {
    let step = status.state.and_then(|state| match state {
        ConnectionState::EncodeTlsData(mut message) => {
            let start = wire.len();
            // Says how much room it needs.
            if let Err(EncodeError::InsufficientSize(needed)) = message.encode(&mut []) {
                wire.resize(start + needed.required_size, 0);
                message.encode(&mut wire[start..]).map_err(|e| Error::General(e.to_string()))?;
            }
            Ok(Step::Again)
        }
        ConnectionState::TransmitTlsData(sent) => {
            sent.done();
            Ok(Step::Again)
        }
        ConnectionState::ReadTraffic(mut records) => {
            while let Some(record) = records.next_record() {
                data.extend_from_slice(record?.payload);
            }
            Ok(Step::Again)
        }
        ConnectionState::PeerClosed => {
            *ended = true;
            Ok(Step::Again)
        }
        ConnectionState::WriteTraffic(_) => Ok(Step::Done),
        // Data ahead of the handshake is not taken.
        _ => Ok(Step::Blocked),
    });
    (status.discard, step)
}
