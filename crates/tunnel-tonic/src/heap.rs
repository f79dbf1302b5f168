//! What the allocator has to know of tunnels.
//!
//! glibc gives the top of a heap back to the system as soon as 128 KiB are free there, and gets it
//! back page by page. Sixteen calls of 64 KiB come and go in bursts of a megabyte, so nearly every
//! byte of theirs was written to a page just asked for: such calls had 0.65 of plain tonic's rate
//! in a fresh process, and 1.5 where the heap was kept. (Plain tonic, whose 64 KiB windows make no
//! such bursts, is as fast either way.)
//!
//! glibc learns by itself: once a block that it had mapped is freed, it takes the block's size for
//! one that comes and goes, and keeps twice as much. The first message of a megabyte would teach
//! it. This does it before the first call instead. 256 and 512 KiB were too little: 0.9 to 1.0.

/// Has the allocator expect blocks of up to a megabyte, and so keep up to two megabytes for each
/// of its heaps. Once for each process; it touches no memory. Where `MALLOC_TRIM_THRESHOLD_` or
/// its like is set, that stays as it is.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn prepare() {
    use std::hint::black_box;
    use std::sync::Once;

    const EXPECTED: usize = 1 << 20;
    static ONCE: Once = Once::new();
    // Unless somebody could look at it, the compiler may leave it out.
    ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(EXPECTED))));
}

/// Other allocators do not need to be told.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn prepare() {}
