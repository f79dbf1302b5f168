//! The tasks that poll a tunnel's driver.
//!
//! A handler's tunnel has two such tasks, and one of them at a time has the driver. A task that has
//! read a single call puts the driver back and serves the call itself, which saves a task and a
//! wake-up. It does so only while the other task is idle. That task is woken for new data, however
//! long the handler takes.

use std::future::Future;
use std::mem::take;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use smallvec::SmallVec;

use crate::driver::Driver;
use crate::handler::{ServeCall, poll_once};

/// The number of tasks of a handler's tunnel.
const CARRIERS: usize = 2;

/// How many calls get their own task after a call that did not answer at its first poll.
const OWN_TASKS: u8 = 32;

/// Holds the driver while no task polls it.
struct Seat(Mutex<Place>);

#[derive(Default)]
struct Place {
    driver: Option<Box<Driver>>,
    /// Whether the driver must be polled, by a woken task or again by the one that has it.
    woken: bool,
    /// The idle tasks.
    idle: SmallVec<[Waker; CARRIERS]>,
    /// How many more calls get their own task.
    own_tasks: u8,
    over: bool,
}

impl Seat {
    fn lock(&self) -> MutexGuard<'_, Place> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Seat {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut place = self.lock();
        let told = std::mem::replace(&mut place.woken, true);
        let idle = match told || place.driver.is_none() {
            true => None,
            false => place.idle.pop(),
        };
        drop(place);
        if let Some(idle) = idle {
            idle.wake();
        }
    }
}

/// Starts the tasks of a tunnel.
pub(crate) fn start(driver: Driver) {
    let carriers = match driver.serves() {
        true => CARRIERS,
        false => 1,
    };
    let place = Place {
        driver: Some(Box::new(driver)),
        ..Place::default()
    };
    let seat = Arc::new(Seat(Mutex::new(place)));
    for _ in 0..carriers {
        tokio::spawn(Carrier {
            seat: seat.clone(),
            waker: Waker::from(seat.clone()),
        });
    }
}

/// One of the tasks.
struct Carrier {
    seat: Arc<Seat>,
    /// Wakes an idle task.
    waker: Waker,
}

impl Carrier {
    /// Takes the driver, or becomes idle; `None` when the tunnel is over.
    fn take(&self, own: &Waker) -> Option<Poll<Box<Driver>>> {
        let mut place = self.seat.lock();
        if place.over {
            return None;
        }
        // The task may have been woken for another reason.
        place.idle.retain(|idle| !idle.will_wake(own));
        let Some(driver) = place.driver.take() else {
            place.idle.push(own.clone());
            return Some(Poll::Pending);
        };
        place.woken = false;
        Some(Poll::Ready(driver))
    }

    /// Puts the driver back. With `call`, returns whether this task may serve it. Otherwise this task
    /// becomes idle.
    fn put_back(&self, driver: Box<Driver>, call: bool, own: &Waker) -> Back {
        let mut place = self.seat.lock();
        if place.over {
            return Back::Over(driver);
        }
        place.driver = Some(driver);
        // Not if the driver must be polled at once: the task that this one would wake for that lies in the slot
        // of this worker, where no other worker takes it while the handler computes.
        let serve = call && !place.woken && !place.idle.is_empty() && place.own_tasks == 0;
        if call && !serve {
            place.own_tasks = place.own_tasks.saturating_sub(1);
        }
        let wake = match (place.woken, serve) {
            (_, true) => None,
            // This task yields and runs again.
            (true, false) => Some(own.clone()),
            (false, false) => {
                place.idle.push(own.clone());
                None
            }
        };
        drop(place);
        if let Some(waker) = wake {
            waker.wake();
        }
        match serve {
            true => Back::Serve,
            false => Back::Idle,
        }
    }

    /// A call was served, or was given its own task.
    fn served(&self, answered: bool, own: &Waker) -> Poll<()> {
        let mut place = self.seat.lock();
        if !answered {
            place.own_tasks = OWN_TASKS;
        }
        if place.over {
            return Poll::Ready(());
        }
        place.idle.push(own.clone());
        Poll::Pending
    }
}

/// The next step of a task that has put the driver back.
enum Back {
    Serve,
    Idle,
    Over(Box<Driver>),
}

impl Future for Carrier {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut driver = match self.take(cx.waker()) {
            None => return Poll::Ready(()),
            Some(Poll::Pending) => return Poll::Pending,
            Some(Poll::Ready(driver)) => driver,
        };
        let ended = driver
            .poll(&mut Context::from_waker(&self.waker))
            .is_ready();
        let call = driver.take_alone();
        if ended {
            spawn(call);
            return Poll::Ready(());
        }
        match (self.put_back(driver, call.is_some(), cx.waker()), call) {
            (Back::Serve, Some(call)) => self.served(poll_once(call), cx.waker()),
            (Back::Over(driver), _) => {
                drop(driver);
                Poll::Ready(())
            }
            (_, call) => {
                spawn(call);
                Poll::Pending
            }
        }
    }
}

fn spawn(call: Option<ServeCall>) {
    if let Some(call) = call {
        tokio::spawn(call);
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        // The driver has ended or panicked, or the runtime shuts down: both tasks end.
        let (driver, idle) = {
            let mut place = self.seat.lock();
            place.over = true;
            (place.driver.take(), take(&mut place.idle))
        };
        idle.into_iter().for_each(Waker::wake);
        drop(driver);
    }
}
