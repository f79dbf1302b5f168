//! A DNS server on a UDP socket of the loopback interface, whose records can be changed.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tunnel_client::Lookup;

/// The records of each name, or a failure.
type Zone = HashMap<Name, Result<Vec<RData>, ResponseCode>>;

pub(crate) struct TestDns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: watch::Receiver<usize>,
    serving: AbortHandle,
}

impl TestDns {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = socket.local_addr().expect("it is bound");
        let zone = Arc::new(Mutex::new(Zone::new()));
        let (ask, asked) = watch::channel(0);
        let records = zone.clone();
        let serving = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer).await.expect("it works");
                let question = Message::from_vec(&buffer[..length]).expect("a question");
                let answer = answer(&question, &records.lock().expect("not poisoned"));
                let answer = answer.to_vec().expect("short");
                socket.send_to(&answer, peer).await.expect("it works");
                ask.send_modify(|asked| *asked += 1);
            }
        });
        let serving = serving.abort_handle();
        Self {
            address,
            zone,
            asked,
            serving,
        }
    }

    /// A lookup that asks this server.
    pub(crate) fn lookup(&self) -> Lookup {
        Lookup::dns().name_servers([self.address])
    }

    pub(crate) fn srv(&self, name: &str) -> Lookup {
        Lookup::srv(name).name_servers([self.address])
    }

    pub(crate) fn set(&self, name: &str, addresses: &[IpAddr]) {
        let records = addresses.iter().map(|address| match address {
            IpAddr::V4(address) => RData::A(A(*address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
        });
        self.put(name, Ok(records.collect()));
    }

    /// Each with a priority, a port and a target.
    pub(crate) fn set_srv(&self, name: &str, records: &[(u16, u16, &str)]) {
        let records = records
            .iter()
            .map(|&(priority, port, to)| RData::SRV(SRV::new(priority, 1, port, name_of(to))));
        self.put(name, Ok(records.collect()));
    }

    pub(crate) fn fail(&self, name: &str, code: ResponseCode) {
        self.put(name, Err(code));
    }

    fn put(&self, name: &str, records: Result<Vec<RData>, ResponseCode>) {
        let mut zone = self.zone.lock().expect("not poisoned");
        zone.insert(name_of(name), records);
    }

    /// Waits until it was asked this number of times more.
    pub(crate) async fn asked_again(&self, times: usize) {
        let mut asked = self.asked.clone();
        let wanted = *asked.borrow() + times;
        let reached = asked.wait_for(|asked| *asked >= wanted).await;
        drop(reached.expect("it lives"));
    }
}

impl Drop for TestDns {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn name_of(name: &str) -> Name {
    Name::from_ascii(format!("{}.", name.trim_end_matches('.'))).expect("a legal name")
}

fn answer(question: &Message, zone: &Zone) -> Message {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_queries(question.queries.clone());
    for query in &question.queries {
        match zone.get(&query.name().to_lowercase()) {
            Some(Ok(records)) => {
                let wanted = records
                    .iter()
                    .filter(|r| r.record_type() == query.query_type());
                let record =
                    |data: &RData| Record::from_rdata(query.name().clone(), 60, data.clone());
                answer.add_answers(wanted.map(record));
            }
            Some(Err(code)) => answer.metadata.response_code = *code,
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
    }
    debug_assert!(
        question
            .queries
            .iter()
            .all(|q| q.query_type() != RecordType::ANY)
    );
    answer
}
