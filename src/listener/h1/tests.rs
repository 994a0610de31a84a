//! Whatever a body brings, and however, what is written reads back as the same bytes, and a cut never as an end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use proptest::prelude::*;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::error::{Error, Kind};
use crate::lifecycle::Drain;
use crate::proxy::{ResponseBody, Snapshot};
use crate::telemetry::{Metrics, Telemetry, TelemetrySettings};
use crate::wire::framing::Decoded;
use crate::wire::head::parse_response;

/// What a body does when it is asked for its next frame.
#[derive(Clone, Debug)]
enum Step {
    /// A piece of so many bytes.
    Data(usize),
    Trailers,
    /// There is nothing yet; the next time there is.
    Wait,
    Break,
}

struct Scripted {
    steps: VecDeque<Step>,
    /// Bytes of the whole, if it says so.
    declared: Option<u64>,
    /// How many bytes were given.
    given: usize,
}

impl http_body::Body for Scripted {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Data(length)) => {
                let piece = bytes_from(self.given, length);
                self.given += length;
                Poll::Ready(Some(Ok(Frame::data(piece.into()))))
            }
            Some(Step::Trailers) => Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::new())))),
            Some(Step::Wait) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Break) => Poll::Ready(Some(Err(Error::new(Kind::UpstreamReset, "broken")))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.declared.map_or_else(SizeHint::default, |all| SizeHint::with_exact(all - self.given as u64))
    }
}

/// The bytes of a body from the one at `place` on.
fn bytes_from(place: usize, length: usize) -> Vec<u8> {
    (place..place + length).map(|place| (place / 3 % 251) as u8).collect()
}

fn worker() -> Rc<Worker> {
    let metrics = Metrics::new();
    let records = Telemetry::start(&TelemetrySettings::default(), None, &metrics).unwrap().sink().worker();
    let published = Arc::new(ArcSwap::from_pointee(Snapshot::nothing()));
    Rc::new(Worker::new(published, records, metrics, Drain::default()))
}

/// Writes `body` as the answer to what was `asked`; gives what the client gets, and how it ends.
async fn written(body: Scripted, asked: Asked) -> (BytesMut, std::io::Result<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    let reading = async move {
        let (mut client, mut got) = (client, BytesMut::new());
        loop {
            match client.read_buf(&mut got).await {
                Ok(0) => return (got, Ok(())),
                Ok(_) => {}
                Err(cut) => return (got, Err(cut)),
            }
        }
    };
    let writing = async move {
        let facts = ConnectionFacts::new(peer, None);
        let mut connection = Connection::new(DownstreamIo::Plain(server), facts, worker(), 0);
        let response = Response::new(ResponseBody::without_record(Body::stream(body)));
        match connection.answer(response, asked).await {
            After::Abort => connection.wire.borrow().abort(),
            After::KeepAlive | After::Close => {}
            After::Tunnel(_) => panic!("no tunnel was asked for"),
        }
    };
    tokio::join!(reading, writing).0
}

/// A body as the property is checked for.
#[derive(Clone, Debug)]
struct Described {
    steps: Vec<Step>,
    ending: Vec<Step>,
    size: Size,
}

/// Whether a body says how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Told,
    Unknown,
}

fn body() -> impl Strategy<Value = Described> {
    let size = prop_oneof![Just(Size::Told), Just(Size::Unknown)];
    (steps(), ending(), size).prop_map(|(steps, ending, size)| Described { steps, ending, size })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        // Around what is copied together, and around what is not.
        4 => prop_oneof![0..4_usize, 0..600_usize, 16_300..16_500_usize, 0..70_000_usize].prop_map(Step::Data),
        2 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 0..12)
}

/// How a body goes on when its pieces are given.
fn ending() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![
        4 => Just(vec![]),
        1 => Just(vec![Step::Wait]),
        2 => Just(vec![Step::Trailers]),
        3 => Just(vec![Step::Break]),
        1 => Just(vec![Step::Wait, Step::Break]),
    ]
}

fn check(body: Described, asked: Asked) -> Result<(), TestCaseError> {
    let Described { mut steps, ending, size } = body;
    let length: usize =
        steps.iter().map(|step| if let Step::Data(length) = step { *length } else { 0 }).sum();
    let is_broken = ending.iter().any(|step| matches!(step, Step::Break));
    let has_pieces = steps.iter().any(|step| matches!(step, Step::Wait)) || length > 0;
    steps.extend(ending.iter().cloned());
    let ends_at_once = matches!(ending.first(), Some(Step::Break));
    // One that breaks has promised more than it gives.
    let declared = (size == Size::Told).then(|| length as u64 + u64::from(is_broken));
    let body = Scripted { steps: steps.into(), declared, given: 0 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut got, end) = runtime.block_on(written(body, asked));

    // An answer that broke with its head still here may be a refusal; one that was under way is cut.
    let head = match parse_response(&mut got, &HEAD_LIMITS, &Method::POST).unwrap() {
        Some(head) => head,
        None => {
            prop_assert!(is_broken && end.is_err(), "no answer: {got:?}");
            return Ok(());
        }
    };
    if head.status == http::StatusCode::BAD_GATEWAY {
        prop_assert!(is_broken && end.is_ok());
        return Ok(());
    }
    prop_assert!(!(is_broken && ends_at_once && !has_pieces), "nothing was out: a refusal was due");
    let mut decoder = Decoder::new(head.framing);
    let mut read = Vec::new();
    let is_whole = loop {
        match decoder.decode(&mut got).unwrap() {
            Decoded::Data(data) => read.extend_from_slice(&data),
            Decoded::Trailers(trailers) => prop_assert!(trailers.is_empty()),
            Decoded::End => break true,
            Decoded::NeedMore => break decoder.eof().is_ok() && end.is_ok(),
        }
    };
    let expected = bytes_from(0, length);
    prop_assert!(got.is_empty(), "bytes behind the answer: {got:?}");
    prop_assert!(expected.starts_with(&read), "other bytes than the body's");
    prop_assert_eq!(is_whole, !is_broken);
    if !is_broken {
        prop_assert!(read.len() == length, "{} of {length} bytes", read.len());
        prop_assert!(end.is_ok());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back(body in body(), is_old: bool, keep_alive: bool) {
        let version = if is_old { Version::HTTP_10 } else { Version::HTTP_11 };
        let asked = Asked { version, keep_alive, is_head: false, expectation: Expectation::None };
        check(body, asked)?;
    }
}
