//! The threads that compute, and how many of them: fewer while others take
//! their cores.

use std::ptr::null_mut;
use std::time::{Duration, Instant};

use llama_cpp_sys_2 as sys;

use super::backend::cpu_function;
use crate::Error;

/// How long idle workers spin before they sleep, in ggml's units of about a
/// millisecond each (0 to 100, ggml's default 50). Sleeping at once keeps the
/// cores free for sampling and for writing replies between two decodes.
const POLL: u32 = 0;

/// Time of computing that is looked at together.
const WINDOW: Duration = Duration::from_millis(100);
/// Decodes in it at least: one alone may have read the model from its file.
const MIN_DECODES: u32 = 4;
/// Share of the time in which all threads ran that is crowded below. Threads
/// spin while they wait for each other, so with cores of their own they run
/// nearly all the time.
const CROWDED: f64 = 0.85;
/// Time before one thread more is tried; doubled each time that fails.
const REST: Duration = Duration::from_millis(500);
const MAX_REST: Duration = Duration::from_secs(8);

type NewThreadPool =
    unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> sys::ggml_threadpool_t;
type FreeThreadPool = unsafe extern "C" fn(sys::ggml_threadpool_t);

/// Threads kept between decodes. Without one, ggml built without OpenMP starts
/// and joins threads for every decode.
#[derive(Debug)]
pub(super) struct ThreadPool {
    pool: sys::ggml_threadpool_t,
    free: FreeThreadPool,
}

impl ThreadPool {
    pub(super) fn new(threads: i32) -> Result<Self, Error> {
        let missing = || Error::Unsupported("ggml's CPU backend has no thread pool".into());
        let new = cpu_function(c"ggml_threadpool_new").ok_or_else(missing)?;
        let free = cpu_function(c"ggml_threadpool_free").ok_or_else(missing)?;
        // SAFETY: ggml-cpu.h declares functions of these names and types.
        let (new, free) = unsafe {
            (
                std::mem::transmute::<*mut std::ffi::c_void, NewThreadPool>(new),
                std::mem::transmute::<*mut std::ffi::c_void, FreeThreadPool>(free),
            )
        };
        // SAFETY: `params` lives through the call, which copies it.
        let pool = unsafe {
            let mut params = sys::ggml_threadpool_params_default(threads);
            params.poll = POLL;
            new(&mut params)
        };
        if pool.is_null() {
            return Err(missing());
        }
        Ok(Self { pool, free })
    }

    /// Lets a context compute with these threads.
    ///
    /// # Safety
    ///
    /// The context is valid, and is freed before this is dropped.
    pub(super) unsafe fn attach(&self, context: *mut sys::llama_context) {
        // SAFETY: as the caller says.
        unsafe { sys::llama_attach_threadpool(context, self.pool, null_mut()) };
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        // SAFETY: made by the matching function; the context is gone.
        unsafe { (self.free)(self.pool) }
    }
}

/// How many threads compute.
///
/// A step of all threads is as slow as its slowest: with one core shared, all
/// wait for the thread on it. One thread less is then faster, as each of the
/// others has a core of its own. After a rest, the next one is tried again.
#[derive(Debug)]
pub(super) struct Crew {
    full: i32,
    now: i32,
    /// What the decodes of this window took, and what all threads computed.
    wall: Duration,
    cpu: Duration,
    decodes: u32,
    /// Whether one crowded window more will do: the last one was, or a thread
    /// more is on trial. By itself one may be any hiccup of the machine, and a
    /// rest costs much more.
    in_doubt: bool,
    rest: Duration,
    rested_at: Instant,
}

impl Crew {
    pub(super) fn new(full: i32) -> Self {
        Self {
            full,
            now: full,
            wall: Duration::ZERO,
            cpu: Duration::ZERO,
            decodes: 0,
            in_doubt: false,
            rest: REST,
            rested_at: Instant::now(),
        }
    }

    /// Takes in what a decode took and what the process computed meanwhile;
    /// returns how many threads are to compute from now on, if that changes.
    pub(super) fn note(&mut self, wall: Duration, cpu: Duration, time: Instant) -> Option<i32> {
        self.wall += wall;
        self.cpu += cpu;
        self.decodes += 1;
        if self.full == 1 || self.wall < WINDOW || self.decodes < MIN_DECODES {
            return None;
        }
        let share = self.cpu.as_secs_f64() / (self.wall.as_secs_f64() * f64::from(self.now));
        (self.wall, self.cpu, self.decodes) = (Duration::ZERO, Duration::ZERO, 0);
        let before = self.now;
        let was_in_doubt = std::mem::replace(&mut self.in_doubt, share < CROWDED);
        if share < CROWDED {
            if self.now > 1 && was_in_doubt {
                self.now -= 1;
                self.in_doubt = false;
                self.rested_at = time + self.rest;
                self.rest = (self.rest * 2).min(MAX_REST);
            }
        } else if self.now == self.full {
            self.rest = REST;
        } else if time >= self.rested_at {
            self.now += 1;
            self.in_doubt = true;
        }
        (self.now != before).then_some(self.now)
    }
}

/// The time that all threads of this process have computed.
pub(super) fn process_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives through the call. It cannot fail on this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    /// A crew on a clock of its own, where the cores have so much time for
    /// each number of threads.
    struct Simulation {
        crew: Crew,
        time: Instant,
    }

    impl Simulation {
        fn new(full: i32) -> Self {
            let crew = Crew::new(full);
            let time = crew.rested_at;
            Self { crew, time }
        }

        /// Returns the share of the steps that were computed with so many
        /// threads or more.
        fn run(&mut self, seconds: u32, threads: i32, cores: f64) -> f64 {
            let steps = seconds * 100;
            let mut wide = 0;
            for _ in 0..steps {
                wide += u32::from(self.crew.now >= threads);
                self.step(cores);
            }
            f64::from(wide) / f64::from(steps)
        }

        fn step(&mut self, cores: f64) {
            let cpu = STEP.mul_f64(cores.min(f64::from(self.crew.now)));
            self.time += STEP;
            self.crew.note(STEP, cpu, self.time);
        }
    }

    #[test]
    fn all_compute_while_they_have_their_cores() {
        assert_eq!(Simulation::new(2).run(60, 2, 1.95), 1.0);
        assert_eq!(Simulation::new(16).run(60, 16, 15.5), 1.0);
    }

    #[test]
    fn one_less_while_a_core_is_shared_and_all_again_after() {
        let mut simulation = Simulation::new(2);
        let crowded = simulation.run(60, 2, 1.5);
        assert!(crowded < 0.05, "{crowded}");
        simulation.run(9, 2, 2.0);
        assert_eq!(simulation.run(60, 2, 2.0), 1.0);
    }

    #[test]
    fn a_hiccup_is_no_crowd() {
        let mut simulation = Simulation::new(2);
        for _ in 0..100 {
            // One second, and then one window.
            assert_eq!(simulation.run(1, 2, 1.95), 1.0);
            for _ in 0..10 {
                simulation.step(1.2);
            }
        }
    }

    #[test]
    fn a_trial_ends_with_the_first_crowded_window() {
        let mut simulation = Simulation::new(2);
        simulation.run(1, 2, 1.5);
        assert_eq!(simulation.crew.now, 1);
        let mut wide = 0;
        while wide == 0 || simulation.crew.now == 2 {
            wide += usize::from(simulation.crew.now == 2);
            simulation.step(1.5);
        }
        assert_eq!(wide, 10);
    }

    #[test]
    fn only_as_many_less_as_cores_are_shared() {
        let mut simulation = Simulation::new(8);
        simulation.run(60, 8, 6.0);
        assert!(simulation.run(60, 6, 6.0) > 0.95);
        assert!(simulation.run(60, 8, 6.0) < 0.1);
    }

    #[test]
    fn one_thread_stays() {
        assert_eq!(Simulation::new(1).run(10, 1, 0.1), 1.0);
        let mut simulation = Simulation::new(2);
        simulation.run(10, 2, 0.1);
        assert_eq!(simulation.crew.now, 1);
    }

    #[test]
    fn a_decode_that_waits_for_the_file_is_no_crowd() {
        let mut crew = Crew::new(2);
        let time = crew.rested_at;
        assert_eq!(crew.note(Duration::from_secs(1), STEP, time), None);
    }
}
