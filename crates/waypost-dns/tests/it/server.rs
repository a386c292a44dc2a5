//! A DNS server whose records the test sets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// The response for a name and a type.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Records(Vec<Record>),
    /// No records, with this response code, and this time to live in the SOA record.
    Negative(ResponseCode, u32),
}

#[derive(Clone, Default)]
struct Zone {
    answers: Arc<Mutex<HashMap<(Name, RecordType), Answer>>>,
    queries: Arc<Mutex<Vec<(Name, RecordType)>>>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    zone: Zone,
    task: JoinHandle<()>,
}

impl Server {
    /// A server that answers `NXDOMAIN` for all names.
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Zone::default();
        let task = tokio::spawn(serve(socket, zone.clone()));
        Self {
            address,
            zone,
            task,
        }
    }

    pub(crate) fn set(&self, name: &str, record_type: RecordType, answer: Answer) {
        let key = (Name::from_ascii(name).unwrap(), record_type);
        self.zone.answers.lock().unwrap().insert(key, answer);
    }

    /// The number of queries for a name so far.
    pub(crate) fn queries(&self, name: &str) -> usize {
        let name = Name::from_ascii(name).unwrap();
        let queries = self.zone.queries.lock().unwrap();
        queries
            .iter()
            .filter(|(queried, _)| *queried == name)
            .count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, zone: Zone) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let query = Message::from_bytes(&buffer[..length]).unwrap();
        let question = query.queries[0].clone();
        let key = (question.name().clone(), question.query_type());
        let key = (key.0.to_lowercase(), key.1);
        zone.queries.lock().unwrap().push(key.clone());
        let answer = zone.answers.lock().unwrap().get(&key).cloned();
        let mut response = Message::response(query.metadata.id, query.metadata.op_code);
        response.metadata.message_type = MessageType::Response;
        response.add_query(question);
        match answer.unwrap_or(Answer::Negative(ResponseCode::NXDomain, 1)) {
            Answer::Records(records) => {
                response.add_answers(records);
            }
            Answer::Negative(code, ttl) => {
                response.metadata.response_code = code;
                let root = Name::root();
                let soa = SOA::new(root.clone(), root.clone(), 1, 1, 1, 1, ttl);
                response.add_authorities([Record::from_rdata(root, ttl, RData::SOA(soa))]);
            }
        }
        socket
            .send_to(&response.to_bytes().unwrap(), from)
            .await
            .unwrap();
    }
}
