//! The program `quickio`: a server, and the commands around it.

use quickio::cli;
use quickio::server;
use std::env;
use std::process::ExitCode;

/// The allocator. glibc keeps the memory of a burst, and trimming its heaps stops the shards for
/// hundreds of milliseconds (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The settings of the allocator, which it reads before `main`. Each thread keeps freed memory for its next allocations, up to
/// a number of pieces of each size, and gives none of it back while it does not allocate. Shards seldom allocate more than
/// 4 KiB at once: 53 of them kept 14 MB in larger pieces after 300,000 clients had connected. With at most 64 smaller pieces
/// of each size instead of 200, they kept 6 MB less.
// SAFETY: the allocator declares the symbol for this purpose: a pointer to a text that ends with a zero byte.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 43] = b"tcache_max:4096,tcache_nslots_small_max:64\0";

fn main() -> ExitCode {
    // In a container without an init process.
    if let Some(code) = server::run_as_init() {
        return ExitCode::from(code);
    }
    cli::run(env::args_os().skip(1).collect())
}
