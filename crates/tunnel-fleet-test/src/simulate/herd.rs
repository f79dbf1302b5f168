//! Gateways are lost, and their devices return to the others: discrete events in virtual time.
//!
//! Devices decide with the code of `tunnel-client`, gateways admit with that of `tunnel-server`. The same seed gives the
//! same result. All devices notice the loss at once, and a balancer that has noticed it too gives each attempt to any
//! of the survivors. The network takes no time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;
use tonic::Status;
use tunnel_client::simulation::{Beside, Plan, Steps, Told};
use tunnel_client::{Backoff, ConnectionError, DownReason, EndReason, TransportCause, TunnelError};

use super::survivor::{Attempt, MAX_WRITES, Outcome, Survivor};

/// How long a device waits for its tunnel to open, by default.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the lost tunnels were open.
const OPEN: Duration = Duration::from_secs(3600);

/// The openings in a second on which gateways base the spread that they tell: as in the program.
const TOLD_RATE: f64 = 5000.0;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) devices: usize,
    /// The tunnels of each device, at different gateways.
    pub(crate) tunnels: usize,
    pub(crate) gateways: usize,
    /// The gateways that are lost at the same time.
    pub(crate) lost: usize,
    /// The tunnels that a survivor can open in a second.
    pub(crate) rate: f64,
    /// The limit on openings at once.
    pub(crate) max_openings: Option<usize>,
    /// Whether gateways tell over how long to spread a return.
    pub(crate) told: bool,
    /// Whether tunnels have mutual TLS.
    pub(crate) tls: bool,
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Herd {
    /// The tunnels that were lost.
    pub(crate) lost: usize,
    pub(crate) opened: usize,
    pub(crate) attempts: usize,
    pub(crate) refused: usize,
    pub(crate) timed_out: usize,
    /// The most in any second.
    pub(crate) peak_attempts: usize,
    pub(crate) peak_openings: usize,
    /// The most attempts for one tunnel.
    pub(crate) most_attempts: u32,
    /// When 99 % of the tunnels were back, and when all were.
    pub(crate) most_back: Duration,
    pub(crate) all_back: Duration,
    /// The most devices without any tunnel, and when each had one again.
    pub(crate) without: usize,
    pub(crate) reachable: Duration,
    /// CPU time of the survivors.
    pub(crate) cpu: Duration,
    /// Transactions of the directory: of the new tunnels, and to remove the records of the lost gateways.
    pub(crate) published: usize,
    pub(crate) swept: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Attempt(Attempt),
    /// A survivor has done a piece of work.
    Done(usize),
    GiveUp(Attempt),
}

/// A link whose tunnel was lost.
struct Link {
    device: usize,
    steps: Steps,
    attempts: u32,
    /// Whether an attempt is under way.
    waits: bool,
}

struct World {
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    random: Rng,
    links: Vec<Link>,
    /// The live tunnels of each device that has lost some.
    live: Vec<usize>,
    survivors: Vec<Survivor>,
    attempts: Vec<usize>,
    openings: Vec<usize>,
    without: usize,
    herd: Herd,
}

/// Simulates until all tunnels are back.
pub(crate) fn simulate(scenario: &Scenario) -> Herd {
    let mut world = World::new(scenario);
    world.lose(scenario);
    while let Some(Reverse((at, event))) = world.events.pop() {
        world.now = at;
        match event {
            Event::Attempt(attempt) => world.attempt(attempt),
            Event::Done(survivor) => world.done(survivor),
            Event::GiveUp(attempt) => {
                if waits(&world.links, attempt) {
                    world.herd.timed_out += 1;
                    world.failed(attempt, TunnelError::Timeout(OPEN_TIMEOUT));
                }
            }
        }
    }
    world.finish()
}

impl World {
    fn new(scenario: &Scenario) -> Self {
        let survivor = || Survivor::new(scenario.rate, scenario.max_openings, scenario.tls);
        let survivors = (scenario.lost..scenario.gateways).map(|_| survivor());
        Self {
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            random: Rng::with_seed(scenario.seed),
            links: Vec::new(),
            live: Vec::new(),
            survivors: survivors.collect(),
            attempts: Vec::new(),
            openings: Vec::new(),
            without: 0,
            herd: Herd::default(),
        }
    }

    /// Gives the tunnels of all devices to random gateways, and ends those of the first ones.
    fn lose(&mut self, scenario: &Scenario) {
        let mut lost_of = Vec::new();
        let mut gateways: Vec<usize> = (0..scenario.gateways).collect();
        let mut records = vec![0_usize; scenario.lost];
        for _ in 0..scenario.devices {
            for tunnel in 0..scenario.tunnels {
                let other = self.random.usize(tunnel..gateways.len());
                gateways.swap(tunnel, other);
            }
            let own = &gateways[..scenario.tunnels];
            let lost = own.iter().filter(|gateway| **gateway < scenario.lost);
            let lost = lost.map(|gateway| records[*gateway] += 1).count();
            if lost > 0 {
                lost_of.push(lost);
            }
        }
        let open = scenario.devices * scenario.tunnels / scenario.gateways;
        let others = scenario.gateways.saturating_sub(1).max(1);
        let spread = Duration::from_secs_f64(open as f64 / (TOLD_RATE * others as f64));
        let told = Told {
            return_spread: scenario.told.then_some(spread),
            grace: None,
        };
        let reason = ConnectionError::TransportLost(TransportCause::Other.into());
        let reason = EndReason::Error(reason);
        for (device, lost) in lost_of.into_iter().enumerate() {
            for gone in 1..=lost {
                let beside = Beside {
                    tunnel: scenario.tunnels > gone,
                    ..Beside::default()
                };
                let mut steps = Steps::new(&Backoff::default());
                let draw = &mut || self.random.f64();
                let plan = Plan::after_tunnel(Some(&reason), OPEN, beside, told, &mut steps, draw);
                let link = self.links.len();
                self.links.push(Link {
                    device,
                    steps,
                    attempts: 0,
                    waits: false,
                });
                self.plan(link, plan);
            }
            self.live.push(scenario.tunnels - lost);
        }
        self.without = self.live.iter().filter(|live| **live == 0).count();
        self.herd.without = self.without;
        self.herd.lost = self.links.len();
        let sweeps = records.iter().map(|keys| keys.div_ceil(MAX_WRITES - 1));
        self.herd.swept = sweeps.sum();
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.events.push(Reverse((self.now + after, event)));
    }

    fn plan(&mut self, link: usize, plan: Plan) {
        let number = self.links[link].attempts + 1;
        self.at(plan.wait, Event::Attempt(Attempt { link, number }));
    }

    fn attempt(&mut self, attempt: Attempt) {
        let link = &mut self.links[attempt.link];
        (link.attempts, link.waits) = (attempt.number, true);
        self.herd.attempts += 1;
        self.herd.most_attempts = self.herd.most_attempts.max(attempt.number);
        count(&mut self.attempts, self.now);
        self.at(OPEN_TIMEOUT, Event::GiveUp(attempt));
        let survivor = self.random.usize(..self.survivors.len());
        if let Some(takes) = self.survivors[survivor].arrive(attempt) {
            self.at(takes, Event::Done(survivor));
        }
    }

    fn done(&mut self, survivor: usize) {
        let random = self.random.f64();
        let links = &self.links;
        let (outcome, next) =
            self.survivors[survivor].done(self.now, random, |attempt| waits(links, attempt));
        if let Some(takes) = next {
            self.at(takes, Event::Done(survivor));
        }
        match outcome {
            Some(Outcome::Opened(attempt)) if waits(&self.links, attempt) => self.opened(attempt),
            Some(Outcome::Refused(attempt, later)) if waits(&self.links, attempt) => {
                self.herd.refused += 1;
                self.failed(attempt, TunnelError::Refused(refusal(later)));
            }
            // Connected, or done in vain.
            _ => {}
        }
    }

    fn failed(&mut self, attempt: Attempt, error: TunnelError) {
        let error = DownReason::NotOpened(error);
        let link = &mut self.links[attempt.link];
        link.waits = false;
        let draw = &mut || self.random.f64();
        let plan = Plan::after_failure(&error, &mut link.steps, draw);
        self.plan(attempt.link, plan);
    }

    fn opened(&mut self, attempt: Attempt) {
        let link = &mut self.links[attempt.link];
        link.waits = false;
        count(&mut self.openings, self.now);
        self.herd.opened += 1;
        self.herd.all_back = self.now;
        if self.herd.opened * 100 <= self.herd.lost * 99 {
            self.herd.most_back = self.now;
        }
        let live = &mut self.live[link.device];
        *live += 1;
        if *live == 1 {
            self.without -= 1;
            self.herd.reachable = self.now;
        }
    }

    fn finish(self) -> Herd {
        let mut herd = self.herd;
        herd.peak_attempts = self.attempts.into_iter().max().unwrap_or(0);
        herd.peak_openings = self.openings.into_iter().max().unwrap_or(0);
        herd.cpu = self.survivors.iter().map(|survivor| survivor.busy).sum();
        let written = self.survivors.iter().map(|survivor| survivor.transactions);
        herd.published = written.sum();
        herd
    }
}

/// Whether the link still waits for this attempt.
fn waits(links: &[Link], attempt: Attempt) -> bool {
    let link = &links[attempt.link];
    link.waits && link.attempts == attempt.number
}

/// Counts an event in its second.
fn count(seconds: &mut Vec<usize>, now: Duration) {
    let second = usize::try_from(now.as_secs()).unwrap_or(usize::MAX);
    if seconds.len() <= second {
        seconds.resize(second + 1, 0);
    }
    seconds[second] += 1;
}

/// The refusal of a gateway that opens too many tunnels, as `tunnel-server` makes it.
fn refusal(later: Duration) -> Status {
    let mut status = Status::unavailable("too many openings");
    let millis = u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
    let metadata = status.metadata_mut();
    metadata.insert("grpc-retry-pushback-ms", millis.into());
    status
}

#[cfg(test)]
mod tests {
    use super::super::survivor::HANDSHAKES;
    use super::*;

    /// Ten gateways, one is lost with 3,000 tunnels, and the others can open 450 in a second.
    fn scenario() -> Scenario {
        Scenario {
            devices: 30_000,
            tunnels: 1,
            gateways: 10,
            lost: 1,
            rate: 50.0,
            max_openings: Some(20),
            told: false,
            tls: true,
            seed: 1,
        }
    }

    /// The same with survivors that are as fast as the program assumes.
    fn fast() -> Scenario {
        Scenario {
            devices: 1_000_000,
            rate: TOLD_RATE,
            max_openings: Some(200),
            told: true,
            ..scenario()
        }
    }

    fn rate(scenario: &Scenario) -> usize {
        (scenario.gateways - scenario.lost) * scenario.rate as usize
    }

    #[test]
    fn nobody_is_forgotten() {
        for (told, max_openings, tunnels, lost) in [
            (false, None, 1, 1),
            (false, Some(20), 1, 1),
            (true, Some(20), 1, 1),
            (true, Some(20), 2, 3),
        ] {
            let scenario = Scenario {
                told,
                max_openings,
                tunnels,
                lost,
                ..scenario()
            };
            let herd = simulate(&scenario);
            assert!(herd.lost > 2_000, "{herd:?}");
            assert_eq!(herd.opened, herd.lost, "{herd:?}");
            assert_eq!(
                herd.attempts,
                herd.opened + herd.refused + herd.timed_out,
                "each attempt has an outcome: {herd:?}"
            );
            assert!(herd.most_back <= herd.all_back);
        }
    }

    #[test]
    fn with_the_spread_told_the_peak_stays_below_twice_the_admitted_rate() {
        let herd = simulate(&fast());
        assert!(herd.peak_attempts < 2 * rate(&fast()), "{herd:?}");
        let each = herd.attempts as f64 / herd.lost as f64;
        assert!(each < 1.5, "{herd:?}");
    }

    #[test]
    fn without_the_spread_the_peak_is_over_twice_the_admitted_rate() {
        let scenario = Scenario {
            told: false,
            ..fast()
        };
        let herd = simulate(&scenario);
        assert!(herd.peak_attempts > 2 * rate(&scenario), "{herd:?}");
    }

    #[test]
    fn no_more_tunnels_open_in_a_second_than_the_survivors_can() {
        for max_openings in [None, Some(200)] {
            let scenario = Scenario {
                told: false,
                max_openings,
                ..fast()
            };
            let herd = simulate(&scenario);
            // Handshakes of the second before may be done.
            let done = 9 * HANDSHAKES;
            assert!(herd.peak_openings <= rate(&scenario) + done, "{herd:?}");
        }
    }

    #[test]
    fn devices_with_another_tunnel_are_never_without_and_take_ten_times_as_long() {
        let one = simulate(&fast());
        let two = simulate(&Scenario {
            tunnels: 2,
            ..fast()
        });
        assert!(one.without > 90_000, "{one:?}");
        assert_eq!(two.without, 0);
        // Twice the tunnels, in ten times the time of each.
        assert!(two.most_back > 10 * one.most_back, "{one:?} {two:?}");
        assert!(two.peak_openings < one.peak_openings / 2, "{one:?} {two:?}");
    }

    #[test]
    fn the_same_seed_has_the_same_result_and_another_one_has_another() {
        let seeded = |seed| simulate(&Scenario { seed, ..scenario() });
        assert_eq!(seeded(1), seeded(1));
        assert_ne!(seeded(1), seeded(2));
    }
}
