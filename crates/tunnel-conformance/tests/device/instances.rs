//! Several instances of a gateway behind one address, in virtual time and without sockets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::service::Routes;
use tunnel_client::{
    Backoff, ForwardChannel, Gateway, LinkStatus, LinksHandle, ReverseTunnelServer, TunnelEvent,
};
use tunnel_server::TunnelServiceHandler;

use crate::support::{Running, TestGateway, device, guarded};

const MINUTE: Duration = Duration::from_secs(60);

/// Fails a test that exceeds a limit of virtual time. A test that hangs reaches it at once.
async fn limited(test: impl Future<Output = ()>) {
    let in_time = tokio::time::timeout(24 * 60 * MINUTE, test).await;
    in_time.expect("the test hangs");
}

/// A load balancer before some instances.
struct Balancer {
    instances: Vec<TunnelServiceHandler>,
    /// Which instances the next connections lead to. The last one is for all further connections.
    plan: Arc<Mutex<Vec<usize>>>,
    dialled: mpsc::UnboundedReceiver<Instant>,
    gateway: Gateway,
}

impl Balancer {
    /// Instances that name themselves, and their number.
    fn new(instances: usize, plan: &[usize]) -> Self {
        let balancer = Self::without_names(instances, plan);
        balancer.are(instances);
        balancer
    }

    fn without_names(instances: usize, plan: &[usize]) -> Self {
        let instances: Vec<_> = (0..instances)
            .map(|_| TunnelServiceHandler::builder().build())
            .collect();
        let plan = Arc::new(Mutex::new(plan.to_vec()));
        let (dial, dialled) = mpsc::unbounded_channel();
        let (planned, leads_to) = (plan.clone(), instances.clone());
        let gateway = Gateway::connect_with("balancer", move || {
            let _ = dial.send(Instant::now());
            let mut plan = planned.lock().expect("not poisoned");
            let instance = match plan.len() {
                1 => plan[0],
                _ => plan.remove(0),
            };
            let service = Routes::new(leads_to[instance].service());
            async move { Ok::<_, Status>(service) }
        });
        Self {
            instances,
            plan,
            dialled,
            gateway,
        }
    }

    /// The instances say that there are so many.
    fn are(&self, instances: usize) {
        for (number, instance) in self.instances.iter().enumerate() {
            instance.set_instance(format!("instance {number}"), instances);
        }
    }

    fn leads_to(&self, instance: usize) {
        *self.plan.lock().expect("not poisoned") = vec![instance];
    }

    fn device(&self, tunnels: usize) -> Running {
        let builder = ReverseTunnelServer::builder(self.gateway.clone());
        Running::start(builder.tunnels_per_gateway(tunnels).build())
    }

    async fn dialled(&mut self) -> Instant {
        self.dialled.recv().await.expect("the device lives")
    }

    /// The number of connections, once there were no more for a long time.
    async fn dialled_in_all(&mut self) -> usize {
        sleep(60 * MINUTE).await;
        std::iter::from_fn(|| self.dialled.try_recv().ok()).count()
    }

    /// The number of tunnels of each instance.
    fn tunnels(&self) -> Vec<usize> {
        self.instances.iter().map(|i| i.tunnels().len()).collect()
    }
}

/// Waits until the links are at these instances, in any order.
async fn are_at(handle: &LinksHandle, wanted: &[&str]) {
    let mut links = handle.watch();
    let at = |links: &Vec<LinkStatus>| {
        let mut at: Vec<_> = links.iter().filter_map(LinkStatus::instance).collect();
        at.sort_unstable();
        at == wanted
    };
    drop(links.wait_for(at).await.expect("the handle lives"));
}

#[tokio::test(start_paused = true)]
async fn tunnels_that_land_at_one_instance_are_led_to_several() {
    limited(async {
        let mut balancer = Balancer::new(3, &[0, 0, 0, 1, 0, 1, 1, 2, 0]);
        let builder = ReverseTunnelServer::builder(balancer.gateway.clone());
        let server = builder.tunnels_per_gateway(3).build();
        let mut events = server.handle().events();
        let device = Running::start(server);
        are_at(&device.handle, &["instance 0", "instance 1", "instance 2"]).await;
        assert_eq!(balancer.dialled_in_all().await, 8);
        assert_eq!(balancer.tunnels(), [1, 1, 1]);
        let instance = device.handle.tunnels()[0].instance().map(str::to_owned);
        assert_eq!(instance.as_deref(), Some("instance 0"));

        // There were never fewer tunnels than before, and only one more for each try.
        let (mut open, mut most) = (0, 0);
        while let Some(Some(event)) = events.next().now_or_never() {
            match event {
                TunnelEvent::Opened(_) => open += 1,
                TunnelEvent::Closed { .. } => open -= 1,
                other => panic!("{other:?}"),
            }
            assert!(open >= most.min(3), "{open} of {most}");
            most = most.max(open);
        }
        assert!((4..=6).contains(&most), "{most}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_eight_tries_another_instance_is_looked_for_every_five_to_ten_minutes() {
    limited(async {
        let mut balancer = Balancer::new(2, &[0]);
        let device = balancer.device(2);
        let begun = Instant::now();
        for _ in 0..2 + 8 {
            balancer.dialled().await;
        }
        assert!(begun.elapsed() < MINUTE);
        let mut last = Instant::now();
        for _ in 0..20 {
            let next = balancer.dialled().await;
            let pause = (next - last).as_secs();
            assert!((300..=601).contains(&pause), "{pause} s");
            assert_eq!(balancer.tunnels()[1], 0);
            last = next;
        }
        are_at(&device.handle, &["instance 0", "instance 0"]).await;
        balancer.leads_to(1);
        are_at(&device.handle, &["instance 0", "instance 1"]).await;
        assert!(last.elapsed() <= 11 * MINUTE);
        assert_eq!(balancer.dialled_in_all().await, 1);
        assert_eq!(balancer.tunnels(), [1, 1]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_looked_for_if_there_are_no_more_instances_or_no_names() {
    limited(async {
        for mut balancer in [
            Balancer::without_names(1, &[0]),
            Balancer::new(1, &[0]),
            Balancer::new(2, &[0, 1, 0, 0]),
        ] {
            let _device = balancer.device(4);
            assert_eq!(balancer.dialled_in_all().await, 4);
            assert_eq!(balancer.tunnels().iter().sum::<usize>(), 4);
        }
        // One tunnel is at one instance.
        let mut balancer = Balancer::new(2, &[0]);
        let _device = balancer.device(1);
        assert_eq!(balancer.dialled_in_all().await, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_comes_back_at_the_same_instance_is_led_away_again() {
    limited(async {
        let mut balancer = Balancer::new(2, &[0, 1, 0, 0, 1]);
        let device = balancer.device(2);
        for _ in 0..2 {
            are_at(&device.handle, &["instance 0", "instance 1"]).await;
            sleep(MINUTE).await;
            balancer.instances[1].tunnels()[0].close_with(Status::aborted("a restart"));
            are_at(&device.handle, &["instance 0"]).await;
            are_at(&device.handle, &["instance 0", "instance 1"]).await;
            *balancer.plan.lock().expect("not poisoned") = vec![0, 0, 1];
        }
        assert_eq!(balancer.dialled_in_all().await, 2 + 3 + 3);
        assert_eq!(balancer.tunnels(), [1, 1]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_number_of_instances_that_grows_counts_from_the_next_tunnel_on() {
    limited(async {
        let mut balancer = Balancer::new(2, &[0]);
        balancer.are(1);
        let device = balancer.device(2);
        assert_eq!(balancer.dialled_in_all().await, 2);
        balancer.are(2);
        *balancer.plan.lock().expect("not poisoned") = vec![0, 0, 1];
        balancer.instances[0].tunnels()[0].close_with(Status::aborted("an age"));
        are_at(&device.handle, &["instance 0", "instance 1"]).await;
        assert_eq!(balancer.dialled_in_all().await, 3);
    })
    .await;
}

/// The tries fail, and are made with the backoff.
#[tokio::test(start_paused = true)]
async fn tries_that_fail_cost_no_tunnel() {
    limited(async {
        let admitted = Arc::new(tokio::sync::Semaphore::new(2));
        let admission = admitted.clone();
        let busy = TunnelServiceHandler::builder().admit(move |_| {
            let admitted = admission.try_acquire().map(|permit| permit.forget());
            async move { admitted.map_err(|_| Status::resource_exhausted("full")) }
        });
        let mut balancer = Balancer::new(2, &[0]);
        balancer.instances[0] = busy.build();
        balancer.are(2);
        let full = balancer.instances[0].clone();
        let other = balancer.instances[1].clone();
        let plan = balancer.plan.clone();
        let gateway = Gateway::connect_with("balancer", move || {
            let to = match plan.lock().expect("not poisoned")[0] {
                0 => full.clone(),
                _ => other.clone(),
            };
            async move { Ok::<_, Status>(Routes::new(to.service())) }
        });
        let builder = ReverseTunnelServer::builder(gateway).tunnels_per_gateway(2);
        let device = Running::start(builder.build());
        are_at(&device.handle, &["instance 0", "instance 0"]).await;
        device.until(1, |status| status.attempts() > 12).await;
        assert_eq!(balancer.tunnels(), [2, 0]);
        balancer.leads_to(1);
        are_at(&device.handle, &["instance 0", "instance 1"]).await;
    })
    .await;
}

/// The instance of a fallback tunnel has no tunnel of a link yet, so that a link can move there.
#[tokio::test(start_paused = true)]
async fn a_fallback_tunnel_at_a_sibling_is_not_counted() {
    limited(async {
        let mut balancer = Balancer::new(3, &[0, 1, 1]);
        let direct = balancer.instances[2].clone();
        let gateway = balancer.gateway.clone().siblings_with(move |_| {
            let direct = direct.clone();
            let connect = move || {
                let service = Routes::new(direct.service());
                async move { Ok::<_, Status>(service) }
            };
            Some(Gateway::connect_with("direct", connect))
        });
        let builder = ReverseTunnelServer::builder(gateway).tunnels_per_gateway(2);
        let device = Running::start(builder.build());
        are_at(&device.handle, &["instance 0", "instance 1"]).await;
        assert_eq!(balancer.dialled_in_all().await, 2);

        let drained = balancer.instances[0].clone();
        drained.set_siblings([http::Uri::from_static("https://direct")]);
        drained.drain(MINUTE).await;
        let mut links = device.handle.watch();
        let has_fallback = |links: &Vec<LinkStatus>| {
            let mut fallbacks = links.iter().filter_map(LinkStatus::fallback_tunnel);
            fallbacks.any(|f| f.tunnel().instance() == Some("instance 2"))
        };
        drop(
            links
                .wait_for(has_fallback)
                .await
                .expect("the handle lives"),
        );
        are_at(&device.handle, &["instance 1"]).await;
        // The link returns to where the other one is.
        are_at(&device.handle, &["instance 1", "instance 1"]).await;
        balancer.leads_to(2);
        are_at(&device.handle, &["instance 1", "instance 2"]).await;
        sleep(60 * MINUTE).await;
        assert_eq!(balancer.tunnels(), [0, 1, 1]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_has_tunnels_to_several_instances_too() {
    limited(async {
        let balancer = Balancer::new(2, &[0, 0, 0, 1, 0]);
        let builder = ForwardChannel::builder(balancer.gateway.clone()).tunnels_per_gateway(2);
        let channel = builder.connect().await.expect("it connects");
        are_at(&channel.handle(), &["instance 0", "instance 1"]).await;
        sleep(60 * MINUTE).await;
        assert_eq!(channel.tunnels().len(), 2);
        assert_eq!(balancer.tunnels(), [1, 1]);
    })
    .await;
}

/// Over sockets.
#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_an_instance_is_seen_at_the_other_end() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let device = Running::start(
            device(gateway.endpoint())
                .0
                .backoff(Backoff::default())
                .build(),
        );
        let status = device.until(0, LinkStatus::is_connected).await;
        assert_eq!(status.instance(), None);
        device.handle.close().await;
        gateway.handler.set_instance("Z\u{fc}rich 1", 3);
        let device = Running::start(crate::support::device(gateway.endpoint()).0.build());
        let status = device.until(0, LinkStatus::is_connected).await;
        assert_eq!(status.instance(), Some("Z\u{fc}rich 1"));
        assert_eq!(device.handle.tunnels()[0].instance(), Some("Z\u{fc}rich 1"));
    })
    .await;
}
