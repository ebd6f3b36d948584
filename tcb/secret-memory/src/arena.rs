//! The allocator: blocks of fixed classes, a list of free ones for each, no coalescing.
//!
//! The library's blocks are few and of recurring sizes, so a freed block is soon wanted again: what
//! is held is the sum of each class's peak, and steady work touches no new page. A freed block is
//! wiped at once and stays zero: the links of the lists are in the headers.

#![expect(unsafe_code, reason = "an allocator works on raw memory")]

use std::ptr::NonNull;

/// Alignment of every block: that of `max_align_t`, which `malloc` promises.
pub const ALIGN: usize = 16;
/// Bytes before each block.
const HEADER: usize = 16;
/// Blocks up to this many bytes come in steps of [`ALIGN`].
const SMALL: usize = 256;
/// Classes up to [`SMALL`].
const SMALL_CLASSES: usize = SMALL / ALIGN;
/// Beyond it each doubling has four classes, up to 16 MiB: no block of the library comes near.
const DOUBLINGS: usize = 16;
const CLASSES: usize = SMALL_CLASSES + 4 * DOUBLINGS;

/// `state` of a block in use and of a free one; anything else is a corrupted heap.
const LIVE: u32 = 0x6c69_7665;
const FREE: u32 = 0x6672_6565;

/// What stands before each block.
#[repr(C)]
struct Header {
    class: u32,
    state: u32,
    /// Bytes asked for while in use; the address of the next free block's header, or 0, while free.
    word: usize,
}

/// An allocator over one region that it owns.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    len: usize,
    /// Offset of what was never handed out.
    next: usize,
    /// For each class the address of the first free block's header; 0 for none.
    free: [usize; CLASSES],
    blocks: u64,
    in_use: usize,
}

// SAFETY: the arena is the only owner of its region, and its methods need `&mut self`.
unsafe impl Send for Arena {}

/// The heap is corrupted: somebody freed what was not theirs. Going on could hand a key's memory out
/// twice, so the process ends.
fn corrupted() -> ! {
    std::process::abort()
}

impl Arena {
    /// An empty arena.
    ///
    /// # Safety
    /// `base` must be valid for reads and writes of `len` zeroed bytes for as long as the arena and
    /// its blocks are used, aligned to [`ALIGN`], and used by nobody else.
    pub const unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len, next: 0, free: [0; CLASSES], blocks: 0, in_use: 0 }
    }

    /// A block of at least `size` bytes, or `None` when there is no room for it.
    pub fn allocate(&mut self, size: usize) -> Option<NonNull<u8>> {
        let class = class_of(size)?;
        let header = self.recycle(class).or_else(|| self.fresh(class)).or_else(|| {
            // The region is used up: a larger free block serves as well.
            (class.saturating_add(1)..CLASSES).find_map(|larger| self.recycle(larger))
        })?;
        // SAFETY: `recycle` and `fresh` give a header within the region, followed by its block,
        // aligned, and referred to by nobody else.
        unsafe {
            (*header.as_ptr()).state = LIVE;
            (*header.as_ptr()).word = size;
            self.blocks = self.blocks.wrapping_add(1);
            self.in_use = self.in_use.saturating_add(size);
            Some(header.cast::<u8>().add(HEADER))
        }
    }

    /// Wipes a block and takes it back.
    ///
    /// # Safety
    /// `block` came from this arena's [`Arena::allocate`] or [`Arena::reallocate`], and nobody uses
    /// it any more. A block that is not in use ends the process.
    pub unsafe fn free(&mut self, block: NonNull<u8>) {
        // SAFETY: the caller's promise: the block is ours, so its header precedes it.
        unsafe {
            let header = self.live_header(block);
            let size = (*header.as_ptr()).word;
            block.write_bytes(0, size);
            self.in_use = self.in_use.saturating_sub(size);
            let class = (*header.as_ptr()).class;
            let Some(first) = self.free.get_mut(class as usize) else { corrupted() };
            (*header.as_ptr()).state = FREE;
            (*header.as_ptr()).word = *first;
            *first = header.as_ptr() as usize;
        }
    }

    /// A block of `size` bytes that begins with what `block` held; `None` leaves `block` as it was.
    ///
    /// # Safety
    /// As for [`Arena::free`]; after `Some` only the new block may be used.
    pub unsafe fn reallocate(&mut self, block: NonNull<u8>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise: the block is ours and in use, so its header and `held` bytes
        // are valid; a new block overlaps no block in use.
        unsafe {
            let header = self.live_header(block);
            let held = (*header.as_ptr()).word;
            let class = (*header.as_ptr()).class;
            if size <= size_of_class(class as usize) {
                if size < held {
                    block.add(size).write_bytes(0, held.saturating_sub(size));
                }
                (*header.as_ptr()).word = size;
                self.in_use = self.in_use.saturating_sub(held).saturating_add(size);
                return Some(block);
            }
            let moved = self.allocate(size)?;
            moved.copy_from_nonoverlapping(block, held.min(size));
            self.free(block);
            Some(moved)
        }
    }

    /// Bytes that a block was asked for.
    ///
    /// # Safety
    /// As for [`Arena::free`].
    pub unsafe fn held(&self, block: NonNull<u8>) -> usize {
        // SAFETY: the caller's promise.
        unsafe { (*self.live_header(block).as_ptr()).word }
    }

    /// Whether an address lies in the region.
    pub fn contains(&self, address: usize) -> bool {
        let base = self.base.as_ptr() as usize;
        address.checked_sub(base).is_some_and(|offset| offset < self.len)
    }

    /// Bytes of the region.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Bytes that were ever handed out, headers included: only these pages cost memory.
    pub const fn touched(&self) -> usize {
        self.next
    }

    /// Bytes of the blocks in use.
    pub const fn in_use(&self) -> usize {
        self.in_use
    }

    /// Blocks handed out so far.
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    fn recycle(&mut self, class: usize) -> Option<NonNull<Header>> {
        let first = self.free.get_mut(class)?;
        let header = NonNull::new(*first as *mut Header)?;
        // SAFETY: only `free` puts addresses into the lists, each of a header within the region.
        unsafe {
            if (*header.as_ptr()).state != FREE {
                corrupted();
            }
            *first = (*header.as_ptr()).word;
        }
        Some(header)
    }

    fn fresh(&mut self, class: usize) -> Option<NonNull<Header>> {
        let bytes = HEADER.checked_add(size_of_class(class))?;
        let end = self.next.checked_add(bytes).filter(|end| *end <= self.len)?;
        // SAFETY: `next + bytes` lies within the region, nothing behind `next` was handed out, and all
        // sizes are multiples of ALIGN, so the header is aligned.
        let header = unsafe {
            let header = self.base.add(self.next).cast::<Header>();
            (*header.as_ptr()).class = u32::try_from(class).ok()?;
            header
        };
        self.next = end;
        Some(header)
    }

    /// # Safety
    /// `block` was handed out by this arena.
    unsafe fn live_header(&self, block: NonNull<u8>) -> NonNull<Header> {
        let address = block.as_ptr() as usize;
        if !self.contains(address) || !address.is_multiple_of(ALIGN) {
            corrupted();
        }
        // SAFETY: every block is preceded by its header.
        unsafe {
            let header = block.sub(HEADER).cast::<Header>();
            if (*header.as_ptr()).state != LIVE {
                corrupted();
            }
            header
        }
    }
}

/// The smallest class whose blocks hold `size` bytes.
fn class_of(size: usize) -> Option<usize> {
    let last = size.max(1).checked_sub(1)?;
    if last < SMALL {
        return Some(last / ALIGN);
    }
    let doubling = usize::try_from(last.ilog2()).ok()?;
    let quarter = (last >> doubling.checked_sub(2)?) & 3;
    let class = doubling.checked_sub(8)?.checked_mul(4)?.checked_add(quarter)?;
    Some(class.checked_add(SMALL_CLASSES)?).filter(|class| *class < CLASSES)
}

/// Bytes of the blocks of a class; 0 for one that does not exist.
fn size_of_class(class: usize) -> usize {
    if class >= CLASSES {
        return 0;
    }
    let Some(large) = class.checked_sub(SMALL_CLASSES) else {
        return class.saturating_add(1).saturating_mul(ALIGN);
    };
    (large % 4).saturating_add(5) << (large / 4).saturating_add(6)
}

#[cfg(test)]
mod tests;
