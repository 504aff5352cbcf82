//! A name server that answers as a test says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::any_port;

/// What the server says to one question.
pub(crate) enum Answer {
    /// These addresses (those of the family asked for), for this many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// An error, with a negative lifetime of a minute.
    Fails(ResponseCode),
    /// Nothing at all.
    Silence,
}

/// A name server on loopback, over UDP.
pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl DnsServer {
    /// `script` gets the name, without its last dot, and how many questions came before.
    pub(crate) async fn start<F>(script: F) -> Self
    where
        F: Fn(&str, usize) -> Answer + Send + 'static,
    {
        let socket = UdpSocket::bind(any_port()).await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let Ok(query) = Message::from_vec(&buffer[..length]) else {
                    continue;
                };
                let before = counter.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = reply(&query, &script, before) {
                    let _ = socket.send_to(&answer.to_vec().unwrap(), peer).await;
                }
            }
        });
        Self { address, asked }
    }

    /// How many questions came so far; a lookup is two, A and AAAA.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn reply(
    query: &Message,
    script: &impl Fn(&str, usize) -> Answer,
    before: usize,
) -> Option<Message> {
    let question = query.queries.first()?;
    let name = question.name().to_ascii();
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_available = true;
    reply.add_query(question.clone());
    match script(name.trim_end_matches('.'), before) {
        Answer::Silence => return None,
        Answer::Fails(code) => {
            reply.metadata.response_code = code;
            reply.authorities.push(start_of_authority(question.name()));
        }
        Answer::Addresses(addresses, ttl) => {
            for address in addresses {
                let data = match address {
                    IpAddr::V4(v4) if question.query_type() == RecordType::A => RData::A(A(v4)),
                    IpAddr::V6(v6) if question.query_type() == RecordType::AAAA => {
                        RData::AAAA(AAAA(v6))
                    }
                    IpAddr::V4(_) | IpAddr::V6(_) => continue,
                };
                reply.add_answer(Record::from_rdata(question.name().clone(), ttl, data));
            }
            if reply.answers.is_empty() {
                reply.authorities.push(start_of_authority(question.name()));
            }
        }
    }
    Some(reply)
}

/// What gives a negative answer its lifetime (RFC 2308).
fn start_of_authority(name: &Name) -> Record {
    let data = SOA::new(name.clone(), name.clone(), 1, 60, 60, 60, 60);
    Record::from_rdata(name.clone(), 60, RData::SOA(data))
}
