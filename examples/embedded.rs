//! The local tier alone, inside a service: deadlines, groups, and one load at a time for each page.
//!
//! `cargo run --release --example embedded`

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use larder::{BuildError, Cache, LoadError};

const USERS: u32 = 500;
const THREADS: u64 = 8;
const REQUESTS_PER_THREAD: usize = 20_000;

/// The service: renders pages from a slow database, and keeps them.
struct Service {
    pages: Cache<String, String>,
    /// Stands for the database.
    renames: AtomicU32,
}

#[derive(Debug)]
struct DatabaseDown;

impl Service {
    fn new() -> Result<Service, BuildError> {
        let pages = Cache::builder()
            .name("pages")
            // In bytes, by the weigher.
            .capacity(1 << 20)
            .weigher(|path: &String, page: &String| (path.len() + page.len()) as u64)
            // After 200 ms a page is still served, while one caller refreshes it; after 1 s it is not served any more.
            .soft_ttl(Duration::from_millis(200))
            .hard_ttl(Duration::from_secs(1))
            .jitter(0.1)
            .build()?;
        Ok(Service { pages, renames: AtomicU32::new(0) })
    }

    fn page(&self, user: u32) -> Result<String, LoadError<DatabaseDown>> {
        self.pages.get_or_load(&format!("/user/{user}"), |load| {
            // Named before the database is asked: a rename from here on fences this load.
            load.groups([format!("user:{user}"), "all-users".to_owned()]);
            let renames = self.renames.load(Ordering::Acquire);
            thread::sleep(Duration::from_millis(2));
            // One page in the middle of the list cannot be rendered for a while.
            if user == USERS / 2 && renames < 10 { Err(DatabaseDown) } else { Ok(format!("user {user}, {renames}")) }
        })
    }

    /// Changes a user, and everything that shows it.
    fn rename(&self, user: u32) {
        // Release pairs with the Acquire in the loader: whoever loads after the invalidation sees the change.
        self.renames.fetch_add(1, Ordering::Release);
        self.pages.invalidate_group(&format!("user:{user}"));
    }
}

fn main() -> Result<(), BuildError> {
    let service = Service::new()?;
    let failures = AtomicU32::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        for seed in 0..THREADS {
            let (service, failures) = (&service, &failures);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                for request in 0..REQUESTS_PER_THREAD {
                    // The lower a user's number, the more often it is asked for.
                    let below = rng.u32(..USERS);
                    let user = rng.u32(..=below);
                    if request % 1_000 == 999 {
                        service.rename(user);
                    } else if let Err(error) = service.page(user) {
                        failures.fetch_add(1, Ordering::Relaxed);
                        assert!(error.loader().is_some(), "only the database fails here: {error:?}");
                    }
                }
            });
        }
    });
    service.pages.run_maintenance();
    let stats = service.pages.stats();
    println!("{} requests in {:.1?} by {THREADS} threads", THREADS as usize * REQUESTS_PER_THREAD, start.elapsed());
    println!("hits           {:>7}  {:.1} % of reads", stats.hits(), 100.0 * stats.hit_ratio());
    println!("  of them old  {:>7}  while another caller refreshed the page", stats.hits_stale);
    println!("loads          {:>7}  {:.2?} each", stats.loads, stats.load_time / (stats.loads.max(1) as u32));
    println!("load failures  {:>7}  seen by {} callers", stats.load_failures, failures.load(Ordering::Relaxed));
    println!("waits          {:>7}  for a load of another caller", stats.load_waits);
    println!("invalidations  {:>7}  by {} renames", stats.invalidations, service.renames.load(Ordering::Relaxed));
    println!("fenced loads   {:>7}  overtaken by a rename, and not stored", stats.fences);
    println!("pages          {:>7}  {} bytes", service.pages.len(), service.pages.weight());
    Ok(())
}
