//! Zeroed memory aligned to cache lines, for packed weights and for what a run works in.
//!
//! Large blocks come from the system as pages that are zero already, so nothing is written twice. They start in small
//! pages, because a huge one that the machine's host has to find first takes longer than all of the packing, and move to
//! huge pages in the background once they prove to be used again ([`Memory::settle`]): runs are 5 to 40 % faster there.

use std::ptr::NonNull;
use std::sync::Arc;

/// Alignment of every block, in bytes.
pub const ALIGN: usize = 64;

/// Bytes of a block from which on another thread asks for its pages while the first of them are worked in.
const AHEAD: usize = 8 << 20;

/// A block of bytes, zero at first.
pub struct Memory {
    start: NonNull<u8>,
    len: usize,
    _owner: Owner,
}

enum Owner {
    Heap { _words: Vec<u64> },
    Mapped { _region: Arc<system::Region> },
}

// SAFETY: a block is plain memory that its owner alone reaches, through `&mut` where it is written.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// A block by itself: `len` bytes.
    pub fn zeroed(len: usize) -> Memory {
        #[cfg(all(feature = "guarded", target_os = "linux"))]
        if len > 0
            && let Some(region) = system::Region::guarded(len)
        {
            return Memory { start: region.start, len, _owner: Owner::Mapped { _region: Arc::new(region) } };
        }
        if len >= system::LARGE
            && let Some(region) = system::Region::new(len, true).map(Arc::new)
        {
            system::used(&region, len);
            if len >= AHEAD {
                system::touch_all(&region);
            }
            return Memory { start: region.start, len, _owner: Owner::Mapped { _region: region } };
        }
        Memory::on_heap(len)
    }

    /// A block that lies beside others which live about as long, such as the weights of one program.
    pub fn beside(len: usize) -> Memory {
        match system::take(len) {
            Some((start, region)) => Memory { start, len, _owner: Owner::Mapped { _region: region } },
            None => Memory::on_heap(len),
        }
    }

    /// Moves blocks made since the last call to huge pages, on a thread of its own. For what runs again: a model that
    /// runs once is done before that pays.
    pub fn settle() {
        system::settle();
    }

    fn on_heap(len: usize) -> Memory {
        let mut words = vec![0u64; (len + ALIGN).div_ceil(8)];
        let start = words.as_mut_ptr().cast::<u8>();
        // SAFETY: the vector holds `len` bytes after the at most `ALIGN` that are skipped.
        let start = unsafe { NonNull::new_unchecked(start.add(start.align_offset(ALIGN).min(ALIGN))) };
        Memory { start, len, _owner: Owner::Heap { _words: words } }
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// Its first byte.
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the block is `len` initialised bytes that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Its bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the owner keeps `len` initialised bytes at `start` alive, and hands them to nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::on_heap(0)
    }
}

impl Clone for Memory {
    fn clone(&self) -> Memory {
        let mut copy = Memory::beside(self.len);
        // SAFETY: as in `as_mut_slice`; nobody writes while this is borrowed.
        copy.as_mut_slice().copy_from_slice(unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) });
        copy
    }
}

#[cfg(target_os = "linux")]
mod system {
    use super::ALIGN;
    use std::ptr::NonNull;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
    use std::sync::{Arc, LazyLock, Mutex, Weak};

    /// Smaller blocks are left to the allocator.
    pub const LARGE: usize = 1 << 18;
    /// Bytes of a huge page.
    const HUGE: usize = 2 << 20;
    /// Bytes of a region that blocks share.
    const SHARED: usize = 16 << 20;
    /// Below this sum of shared blocks a region is smaller, and below this one a huge page would be mostly empty.
    const MODEST: usize = 4 << 20;
    const SPARSE: usize = 1 << 20;

    /// Whether pages can be moved to a huge one later (Linux 6.1): an unknown advice is refused, a known one about nothing
    /// is not.
    static COLLAPSES: LazyLock<bool> = LazyLock::new(|| {
        // SAFETY: advice about no bytes touches none.
        !cfg!(miri) && unsafe { libc::madvise(std::ptr::null_mut(), 0, libc::MADV_COLLAPSE) == 0 }
    });

    /// Pages of the system, given back on drop.
    pub struct Region {
        pub start: NonNull<u8>,
        /// What was mapped, when more than the region.
        #[cfg(feature = "guarded")]
        whole: Option<(usize, usize)>,
        len: usize,
        /// Bytes from the start that blocks were made of.
        used: AtomicUsize,
        /// Its start is that of a huge page.
        aligned: bool,
    }

    // SAFETY: a region is an address range; what lies there is guarded by the blocks made of it.
    unsafe impl Send for Region {}
    // SAFETY: as above.
    unsafe impl Sync for Region {}

    impl Region {
        /// Pages for `len` bytes, which may become huge ones where they fit; `None` when the system refuses.
        pub fn new(len: usize, huge: bool) -> Option<Region> {
            let len = len.checked_next_multiple_of(4096)?;
            let slack = if huge && len >= HUGE { HUGE } else { 0 };
            let all = len.checked_add(slack)?;
            // SAFETY: a new private mapping touches nothing that exists.
            let p = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    all,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                    -1,
                    0,
                )
            };
            if p == libc::MAP_FAILED {
                return None;
            }
            let before = if slack == 0 { 0 } else { p.cast::<u8>().align_offset(HUGE).min(slack) };
            let p = p.cast::<u8>();
            // SAFETY: both ends and the region between them lie in the mapping just made. Advice changes no content,
            // and a refusal of either call leaves what is there usable.
            unsafe {
                if before > 0 {
                    libc::munmap(p.cast(), before);
                }
                if slack > before {
                    libc::munmap(p.add(before + len).cast(), slack - before);
                }
                if slack > 0 && !*COLLAPSES {
                    libc::madvise(p.add(before).cast(), len, libc::MADV_HUGEPAGE);
                }
                Some(Region {
                    start: NonNull::new(p.add(before))?,
                    #[cfg(feature = "guarded")]
                    whole: None,
                    len,
                    used: AtomicUsize::new(0),
                    aligned: slack > 0,
                })
            }
        }

        /// Has the system give all pages from `start` on at once, which takes less than asking for each when it is first
        /// written.
        fn touch(&self, start: NonNull<u8>, len: usize) {
            if cfg!(miri) {
                return;
            }
            let before = start.as_ptr() as usize % 4096;
            // SAFETY: the pages lie in the region, whose start and end are those of pages. Those that are there keep what
            // they hold, and a refusal leaves the others to be given when they are written.
            unsafe {
                let first = start.as_ptr().sub(before);
                libc::madvise(first.cast(), before + len, libc::MADV_POPULATE_WRITE);
            }
        }

        /// Moves small pages to huge ones that they fill by half at least, one after the other, for as long as others keep
        /// the region.
        fn collapse(self: Arc<Region>) {
            let first = self.start.as_ptr();
            for at in (0..self.len / HUGE * HUGE).step_by(HUGE) {
                if Arc::strong_count(&self) == 1 || self.used.load(Relaxed) < at + HUGE / 2 {
                    return;
                }
                // SAFETY: the range lies in the region, which this function keeps. Moving pages changes nothing that they
                // hold, also while others read or write them, and a refusal leaves them where they are.
                unsafe { libc::madvise(first.add(at).cast(), HUGE, libc::MADV_COLLAPSE) };
            }
        }

        /// Pages for `len` bytes that end, up to alignment, at a page which nobody may touch; another lies before them.
        #[cfg(feature = "guarded")]
        pub fn guarded(len: usize) -> Option<Region> {
            let pages = len.checked_next_multiple_of(4096)?;
            let all = pages.checked_add(2 * 4096)?;
            // SAFETY: a new private mapping touches nothing that exists; what becomes accessible lies inside it.
            unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let p = libc::mmap(std::ptr::null_mut(), all, libc::PROT_NONE, flags, -1, 0);
                if p == libc::MAP_FAILED {
                    return None;
                }
                let inner = p.cast::<u8>().add(4096);
                let start = inner.add(pages - len.next_multiple_of(ALIGN).min(pages));
                let region = Region {
                    start: NonNull::new(start)?,
                    whole: Some((p as usize, all)),
                    len: pages,
                    used: AtomicUsize::new(0),
                    aligned: false,
                };
                (libc::mprotect(inner.cast(), pages, libc::PROT_READ | libc::PROT_WRITE) == 0)
                    .then_some(region)
            }
        }
    }

    impl Drop for Region {
        fn drop(&mut self) {
            #[cfg(feature = "guarded")]
            if let Some((start, len)) = self.whole {
                // SAFETY: as below.
                unsafe { libc::munmap(start as *mut libc::c_void, len) };
                return;
            }
            // SAFETY: the range was mapped by `new`, and no block of it is left.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        }
    }

    /// Works on pages on a thread of its own; without one, that work is not needed for any result.
    fn aside(work: impl FnOnce() + Send + 'static) {
        drop(std::thread::Builder::new().name("compress-pages".into()).stack_size(64 << 10).spawn(work));
    }

    /// Asks for the pages of a region.
    pub fn touch_all(region: &Arc<Region>) {
        let region = Arc::clone(region);
        aside(move || region.touch(region.start, region.len));
    }

    /// Regions in small pages so far, and whether there are any.
    static SMALL: Mutex<Vec<Weak<Region>>> = Mutex::new(Vec::new());
    static UNSETTLED: AtomicBool = AtomicBool::new(false);

    /// Tells that blocks are made of the first `used` bytes of a region, whose pages may be moved later.
    pub fn used(region: &Arc<Region>, used: usize) {
        region.used.store(used, Relaxed);
        if region.aligned && *COLLAPSES {
            let mut small = SMALL.lock().unwrap_or_else(|e| e.into_inner());
            small.retain(|r| r.strong_count() > 0 && r.as_ptr() != Arc::as_ptr(region));
            small.push(Arc::downgrade(region));
            UNSETTLED.store(true, Relaxed);
        }
    }

    pub fn settle() {
        if UNSETTLED.load(Relaxed) && UNSETTLED.swap(false, Relaxed) {
            let small = std::mem::take(&mut *SMALL.lock().unwrap_or_else(|e| e.into_inner()));
            aside(move || small.iter().filter_map(Weak::upgrade).for_each(Region::collapse));
        }
    }

    struct Shared {
        region: Weak<Region>,
        used: usize,
    }

    static SHARED_REGION: Mutex<Shared> = Mutex::new(Shared { region: Weak::new(), used: 0 });
    static TAKEN: AtomicUsize = AtomicUsize::new(0);

    /// The next `len` bytes of the shared region, fresh and zero: what was taken once is not given again.
    pub fn take(len: usize) -> Option<(NonNull<u8>, Arc<Region>)> {
        if len < LARGE {
            return None;
        }
        let mut shared = SHARED_REGION.lock().unwrap_or_else(|e| e.into_inner());
        let end = shared.used.checked_add(len)?;
        let region = match shared.region.upgrade().filter(|r| end <= r.len) {
            Some(r) => r,
            None => {
                let taken = TAKEN.load(Relaxed);
                let least = if taken >= MODEST { SHARED } else { MODEST };
                let r = Arc::new(Region::new(len.max(least), taken.saturating_add(len) >= SPARSE)?);
                *shared = Shared { region: Arc::downgrade(&r), used: 0 };
                r
            }
        };
        // SAFETY: `used + len` lies inside the region.
        let start = unsafe { region.start.add(shared.used) };
        shared.used = (shared.used + len).next_multiple_of(ALIGN);
        TAKEN.fetch_add(len, Relaxed);
        used(&region, shared.used);
        drop(shared);
        region.touch(start, len);
        Some((start, region))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::ptr::NonNull;
    use std::sync::Arc;

    pub const LARGE: usize = usize::MAX;

    /// There are none.
    pub struct Region {
        pub start: NonNull<u8>,
    }

    impl Region {
        pub fn new(_: usize, _: bool) -> Option<Region> {
            None
        }
    }

    pub fn touch_all(_: &Arc<Region>) {}

    pub fn used(_: &Arc<Region>, _: usize) {}

    pub fn settle() {}

    pub fn take(_: usize) -> Option<(NonNull<u8>, Arc<Region>)> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_zero_aligned_and_apart() {
        let sizes = [0, 1, 63, 1000, 300_000, 5_000_000, 262_144, 17_000_001, 400_000];
        for make in [Memory::zeroed, Memory::beside] {
            let mut blocks: Vec<Memory> = sizes.iter().map(|&n| make(n)).collect();
            for (i, b) in blocks.iter_mut().enumerate() {
                assert_eq!((b.bytes(), b.as_ptr() as usize % ALIGN), (sizes[i], 0));
                assert!(b.as_mut_slice().iter().all(|&x| x == 0));
                b.as_mut_slice().fill(i as u8 + 1);
            }
            let copies = blocks.clone();
            blocks.iter_mut().for_each(|b| b.as_mut_slice().fill(0));
            for (i, mut c) in copies.into_iter().enumerate() {
                assert!(c.as_mut_slice().iter().all(|&x| x == i as u8 + 1));
            }
        }
    }

    #[test]
    fn blocks_keep_what_they_hold_while_their_pages_move() {
        let sizes = [300_000, 9_000_000, 2_500_000, 700_000];
        for make in [Memory::zeroed, Memory::beside] {
            let mut blocks: Vec<Memory> = sizes.iter().map(|&n| make(n)).collect();
            for round in 0..20u8 {
                for (i, b) in blocks.iter_mut().enumerate() {
                    b.as_mut_slice().fill(round + i as u8);
                }
                if round % 4 == 1 {
                    Memory::settle();
                }
                for (i, b) in blocks.iter().enumerate() {
                    assert!(b.as_slice().iter().all(|&x| x == round + i as u8));
                }
                blocks.push(make(2_100_000));
                blocks.swap_remove(round as usize % 4);
            }
        }
    }
}
