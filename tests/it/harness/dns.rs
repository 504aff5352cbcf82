//! A name server that answers as a test says.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{any_port, within};

/// What the server says to one question.
pub(crate) enum Answer {
    /// These addresses (those of the family asked for), for this many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// The same, but too many for a datagram: they are to be asked for over TCP.
    TooMany(Vec<IpAddr>),
    /// These addresses, and nothing at all to who asks for the other family.
    OneFamily(Vec<IpAddr>),
    /// These addresses: IPv4 for a minute, IPv6 for no longer than now.
    Fleeting6(Vec<IpAddr>),
    /// Too many for a datagram, and over TCP nothing at all.
    Truncated,
    /// A datagram that breaks off behind so many bytes.
    Cut(usize),
    /// Another name to look at.
    Alias(&'static str),
    /// An error, with a negative lifetime of a minute.
    Fails(ResponseCode),
    /// Nothing at all.
    Silence,
    /// These IPv6 addresses at once, and these IPv4 addresses after so long.
    Apart(Vec<IpAddr>, Duration),
    /// These addresses, after so long.
    Late(Vec<IpAddr>, Duration),
}

/// A name server on loopback, over UDP and TCP.
pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    asked: Arc<Asked>,
    heard: watch::Receiver<usize>,
    serving: [JoinHandle<()>; 2],
}

impl DnsServer {
    /// `script` gets the name, without its last dot, and how many questions for the same family came before.
    pub(crate) async fn start<F>(script: F) -> Self
    where
        F: Fn(&str, usize) -> Answer + Send + Sync + 'static,
    {
        Self::start_at(any_port(), script).await
    }

    /// At an address of the test, where one may have been before.
    pub(crate) async fn start_at<F>(address: SocketAddr, script: F) -> Self
    where
        F: Fn(&str, usize) -> Answer + Send + Sync + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = Arc::new(UdpSocket::bind(address).await.unwrap());
        let asked = Arc::new(Asked::default());
        let counter = Arc::clone(&asked);
        let (hears, heard) = watch::channel(0);
        let script = Arc::new(script);
        let over_tcp = tokio::spawn(over_tcp(listener, Arc::clone(&script)));
        let over_udp = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                hears.send_modify(|datagrams| *datagrams += 1);
                let Ok(query) = Message::from_vec(&buffer[..length]) else {
                    continue;
                };
                let before = counter.before(&query);
                let Some(Reply { message, late, cut }) = reply(&query, &*script, before, false)
                else {
                    continue;
                };
                let socket = Arc::clone(&socket);
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    let mut datagram = message.to_vec().unwrap();
                    datagram.truncate(cut);
                    let _ = socket.send_to(&datagram, peer).await;
                });
            }
        });
        Self {
            address,
            asked,
            heard,
            serving: [over_tcp, over_udp],
        }
    }

    /// Takes it from its address: whoever asks is refused.
    pub(crate) async fn die(self) {
        for serving in self.serving {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// From now on whoever comes over TCP is refused. The port stays taken.
    pub(crate) async fn refuse_tcp(&mut self) -> TcpSocket {
        let over_tcp = &mut self.serving[0];
        over_tcp.abort();
        let _ = over_tcp.await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(self.address).unwrap();
        socket
    }

    /// How many questions for this family came so far over UDP; a lookup is two, A and AAAA.
    ///
    /// Where there is an A, an AAAA that takes long is left and may be asked for again.
    pub(crate) fn asked(&self, family: RecordType) -> usize {
        self.asked.of(family)
    }

    /// Waits until so many datagrams have come, with those that repeat a question.
    pub(crate) async fn hears(&self, datagrams: usize) {
        let mut heard = self.heard.clone();
        within(heard.wait_for(|heard| *heard >= datagrams))
            .await
            .unwrap();
    }
}

/// The questions that came, by their message identifiers.
///
/// One that is not answered soon is sent again as it was (RFC 1035 §4.2.1): that is no other question.
#[derive(Default)]
struct Asked(Mutex<Vec<(u16, Query)>>);

impl Asked {
    /// How many questions for the same family came before this one, which is noted.
    fn before(&self, query: &Message) -> usize {
        let mut asked = self.0.lock().unwrap();
        let Some(question) = query.queries.first() else {
            return 0;
        };
        let asking = (query.metadata.id, question.clone());
        let known = asked.iter().position(|known| *known == asking);
        let position = known.unwrap_or_else(|| {
            asked.push(asking);
            asked.len() - 1
        });
        count(&asked[..position], question.query_type())
    }

    fn of(&self, family: RecordType) -> usize {
        count(&self.0.lock().unwrap(), family)
    }
}

fn count(asked: &[(u16, Query)], family: RecordType) -> usize {
    asked
        .iter()
        .filter(|(_, question)| question.query_type() == family)
        .count()
}

/// What is sent, after how long, and how many bytes of it.
struct Reply {
    message: Message,
    late: Duration,
    cut: usize,
}

fn reply(
    query: &Message,
    script: &impl Fn(&str, usize) -> Answer,
    before: usize,
    over_tcp: bool,
) -> Option<Reply> {
    let mut late = Duration::ZERO;
    let mut cut = usize::MAX;
    let question = query.queries.first()?;
    let name = question.name().to_ascii();
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_available = true;
    reply.add_query(question.clone());
    match script(name.trim_end_matches('.'), before) {
        Answer::Silence => return None,
        Answer::Truncated if over_tcp => return None,
        Answer::Truncated => reply.metadata.truncation = true,
        Answer::Cut(length) => cut = length,
        Answer::Fails(code) => {
            reply.metadata.response_code = code;
            reply.authorities.push(start_of_authority(question.name()));
        }
        Answer::TooMany(_) if !over_tcp => reply.metadata.truncation = true,
        Answer::TooMany(addresses) => add_addresses(&mut reply, question, addresses, 60),
        Answer::Alias(other) => {
            let alias = RData::CNAME(CNAME(Name::from_ascii(other).unwrap()));
            reply.add_answer(Record::from_rdata(question.name().clone(), 60, alias));
        }
        Answer::Addresses(addresses, ttl) => add_addresses(&mut reply, question, addresses, ttl),
        Answer::OneFamily(addresses) => {
            add_addresses(&mut reply, question, addresses, 60);
            if reply.answers.is_empty() {
                return None;
            }
        }
        Answer::Fleeting6(addresses) => {
            let lasts = question.query_type() == RecordType::A;
            add_addresses(&mut reply, question, addresses, if lasts { 60 } else { 0 });
        }
        Answer::Apart(addresses, after) => {
            add_addresses(&mut reply, question, addresses, 60);
            if question.query_type() == RecordType::A {
                late = after;
            }
        }
        Answer::Late(addresses, after) => {
            add_addresses(&mut reply, question, addresses, 60);
            late = after;
        }
    }
    Some(Reply {
        message: reply,
        late,
        cut,
    })
}

/// Those of the family asked for.
fn add_addresses(reply: &mut Message, question: &Query, addresses: Vec<IpAddr>, ttl: u32) {
    for address in addresses {
        let data = match address {
            IpAddr::V4(v4) if question.query_type() == RecordType::A => RData::A(A(v4)),
            IpAddr::V6(v6) if question.query_type() == RecordType::AAAA => RData::AAAA(AAAA(v6)),
            IpAddr::V4(_) | IpAddr::V6(_) => continue,
        };
        reply.add_answer(Record::from_rdata(question.name().clone(), ttl, data));
    }
    if reply.answers.is_empty() {
        reply.authorities.push(start_of_authority(question.name()));
    }
}

async fn over_tcp<F>(listener: TcpListener, script: Arc<F>)
where
    F: Fn(&str, usize) -> Answer + Send + Sync + 'static,
{
    while let Ok((mut stream, _)) = listener.accept().await {
        let script = Arc::clone(&script);
        tokio::spawn(async move {
            // Each message is preceded by its length (RFC 1035 §4.2.2).
            while let Ok(length) = stream.read_u16().await {
                let mut query = vec![0; length.into()];
                stream.read_exact(&mut query).await.unwrap();
                let query = Message::from_vec(&query).unwrap();
                if let Some(Reply { message, .. }) = reply(&query, &*script, 0, true) {
                    let answer = message.to_vec().unwrap();
                    stream
                        .write_u16(answer.len().try_into().unwrap())
                        .await
                        .unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            }
        });
    }
}

/// What gives a negative answer its lifetime (RFC 2308).
fn start_of_authority(name: &Name) -> Record {
    let data = SOA::new(name.clone(), name.clone(), 1, 60, 60, 60, 60);
    Record::from_rdata(name.clone(), 60, RData::SOA(data))
}
