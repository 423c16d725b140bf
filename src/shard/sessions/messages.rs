//! The messages between a request's connection and its session, which may live on two shards.

use super::refusal::SessionRefusal;
use crate::protocol::OpeningHeaders;
use crate::protocol::http::{SessionParams, Sid};
use crate::qev::buffers::{AcceptedBroadcasts, Frame};
use crate::qev::ring::PeerAddress;
use crate::shard::frames::Outbox;
use crate::web::StaticResponse;
use smallvec::SmallVec;

/// The identity of an HTTP request, server-wide: where its response goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) struct RequestId {
    /// The shard that has the connection.
    pub shard: u16,
    /// The slot of the connection.
    pub connection: u32,
    /// The generation of the connection.
    pub generation: u32,
    /// The number of the request on its connection.
    pub number: u32,
}

/// The loss of the connection of a request that was not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) enum LostInput {
    /// The peer has ended its direction of the stream. It may still read, or may have closed the connection: this cannot be
    /// told before something is sent to it.
    Ended,
    /// The connection is broken, or ends for another reason.
    Broken,
}

/// A request for a session.
pub(in crate::shard) struct SessionRequest<'a> {
    pub id: RequestId,
    pub peer: PeerAddress,
    pub session: SessionParams<'a>,
    /// The headers that are kept if the request creates a session.
    pub opening: Option<&'a OpeningHeaders>,
    /// The subject of the certificate that the request's connection has presented.
    pub certificate: Option<&'a str>,
    /// The events of a poll; `None` for a stream.
    pub body: Option<&'a str>,
}

/// A request for a session that lives on another shard.
pub(in crate::shard) struct RelayedRequest {
    id: RequestId,
    peer: PeerAddress,
    sid: Sid,
    connect: bool,
    close: bool,
    linger: bool,
    seq: Option<u64>,
    host: Box<str>,
    opening: Option<Box<OpeningHeaders>>,
    certificate: Option<Box<str>>,
    body: Option<Box<str>>,
}

impl RelayedRequest {
    /// A copy of a request, to be sent to another shard.
    pub fn of(request: &SessionRequest<'_>) -> RelayedRequest {
        let SessionParams { sid, connect, close, linger, seq, host } = request.session;
        let body = request.body.map(Box::from);
        RelayedRequest {
            id: request.id,
            peer: request.peer,
            sid,
            connect,
            close,
            linger,
            seq,
            host: host.into(),
            opening: request.opening.cloned().map(Box::new),
            certificate: request.certificate.map(Box::from),
            body,
        }
    }

    /// The memory in bytes that the request takes.
    pub fn bytes(&self) -> usize {
        let opening = self.opening.as_deref().map_or(0, OpeningHeaders::bytes);
        let texts = [self.body.as_deref(), self.certificate.as_deref()];
        let texts: usize = texts.iter().flatten().map(|text| text.len()).sum();
        size_of::<RelayedRequest>() + self.host.len() + texts + opening
    }

    /// The request.
    pub fn as_request(&self) -> SessionRequest<'_> {
        let RelayedRequest { sid, connect, close, linger, seq, ref host, .. } = *self;
        let session = SessionParams { sid, connect, close, linger, seq, host };
        SessionRequest {
            id: self.id,
            peer: self.peer,
            session,
            opening: self.opening.as_deref(),
            certificate: self.certificate.as_deref(),
            body: self.body.as_deref(),
        }
    }
}

/// A part of the response to a request, as a session produces it.
pub(in crate::shard) enum ResponsePart {
    /// A response with status 200: output of the session, which may be empty.
    Output(SessionOutput),
    /// A response that refuses the request.
    Refused(SessionRefusal),
    /// The head of an event stream.
    Stream,
    /// More of an event stream.
    More(SessionOutput),
    /// The end of an event stream.
    End,
}

impl ResponsePart {
    /// The memory in bytes that the part takes.
    pub fn bytes(&self) -> usize {
        size_of::<ResponsePart>()
            + match self {
                ResponsePart::Output(output) | ResponsePart::More(output) => output.bytes.capacity(),
                ResponsePart::Refused(_) | ResponsePart::Stream | ResponsePart::End => 0,
            }
    }

    /// A response with status 200 and an empty body.
    pub fn empty() -> ResponsePart {
        ResponsePart::Output(SessionOutput::default())
    }
}

/// A response, or a part of one, for a request on a connection of this shard.
pub(in crate::shard) enum PendingResponse {
    /// A part that a session has produced.
    Part(ResponsePart),
    /// A document of the server's own.
    Document(StaticResponse),
    /// More of an event stream: frames that other clients also get.
    Frames(Outbox),
}

/// The output of a session, copied out of the frames that it was encoded in.
#[derive(Default)]
pub(in crate::shard) struct SessionOutput {
    pub bytes: Vec<u8>,
    /// The broadcasts in these bytes.
    pub accepted: SmallVec<[AcceptedBroadcasts; 1]>,
}

impl SessionOutput {
    /// The bytes of all these frames, in order.
    pub fn of(frames: &Outbox) -> SessionOutput {
        let mut output = SessionOutput::default();
        output.bytes.reserve(frames.iter().map(Frame::len).sum());
        for frame in frames.iter() {
            output.bytes.extend_from_slice(frame.as_slice());
            output.accepted.extend_from_slice(frame.accepted());
        }
        output
    }
}
