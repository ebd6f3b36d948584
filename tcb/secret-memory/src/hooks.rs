//! The three functions that the cryptographic library calls, and how it gets them.

#![expect(unsafe_code, reason = "functions that C code calls")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, MutexGuard};

use aws_lc_rs::signature::Ed25519KeyPair;

use crate::arena::{ALIGN, Arena};
use crate::{Error, region};

/// What the arena holds, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes of secret memory.
    pub capacity: usize,
    /// Bytes of it that were ever handed out: what it costs.
    pub touched: usize,
    /// Bytes in use.
    pub in_use: usize,
    /// Blocks handed out so far.
    pub blocks: u64,
    /// Bytes in use outside of it, because it is full.
    pub overflow: usize,
    /// Blocks that had to be outside of it so far.
    pub overflows: u64,
}

/// The library's heap.
struct Heap {
    arena: Option<Arena>,
    refuses_overflow: bool,
    overflow: usize,
    overflows: u64,
}

static HEAP: Mutex<Heap> =
    Mutex::new(Heap { arena: None, refuses_overflow: false, overflow: 0, overflows: 0 });

/// Puts the library's heap into secret memory. To be called once, before anything uses the library:
/// what it has allocated before stays where it is.
///
/// # Errors
/// [`Error`]; the library's heap is the ordinary one then. After [`Error::Unused`] nobody knows where
/// it is, and the process should end.
pub fn install() -> Result<Figures, Error> {
    if heap().arena.is_some() {
        return Err(Error::Taken);
    }
    let region = region::map()?;
    // SAFETY: the mapping is zeroed, aligned to pages, never unmapped, and known to nobody else.
    heap().arena = Some(unsafe { Arena::new(region.base, region.len) });
    // SAFETY: the functions behave as malloc, realloc and free do, from any thread.
    let set = unsafe {
        aws_lc_sys::CRYPTO_set_mem_functions(Some(allocate), Some(reallocate), Some(free))
    };
    if set != 1 {
        heap().arena = None;
        return Err(Error::Taken);
    }
    // Seen, not believed: a key of the very interface that the signer uses must land in it.
    let before = figures().blocks;
    let probe = Ed25519KeyPair::generate();
    if probe.is_err() || figures().blocks == before {
        return Err(Error::Unused);
    }
    Ok(figures())
}

/// From now on nothing goes to ordinary memory when the secret one is full: the library fails
/// instead. For policies that demand secret memory.
pub fn refuse_overflow() {
    heap().refuses_overflow = true;
}

/// What the heap holds now; all zero before [`install`].
#[must_use]
pub fn figures() -> Figures {
    let heap = heap();
    let Some(arena) = &heap.arena else { return Figures::default() };
    Figures {
        capacity: arena.len(),
        touched: arena.touched(),
        in_use: arena.in_use(),
        blocks: arena.blocks(),
        overflow: heap.overflow,
        overflows: heap.overflows,
    }
}

fn heap() -> MutexGuard<'static, Heap> {
    // Nothing below panics; a poisoned lock would still guard a whole heap.
    HEAP.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

unsafe extern "C" fn allocate(size: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
    heap().allocate(size).map_or(null_mut(), |block| block.as_ptr().cast())
}

unsafe extern "C" fn reallocate(
    block: *mut c_void,
    size: usize,
    _file: *const c_char,
    _line: c_int,
) -> *mut c_void {
    let mut heap = heap();
    let moved = match NonNull::new(block.cast()) {
        None => heap.allocate(size),
        // SAFETY: the library hands back what `allocate` or `reallocate` gave it.
        Some(block) => unsafe { heap.reallocate(block, size) },
    };
    moved.map_or(null_mut(), |block| block.as_ptr().cast())
}

unsafe extern "C" fn free(block: *mut c_void, _file: *const c_char, _line: c_int) {
    if let Some(block) = NonNull::new(block.cast()) {
        // SAFETY: as above, and the library uses it no more.
        unsafe { heap().free(block) }
    }
}

/// What stands before a block in ordinary memory. The second word tells it from anything else.
#[repr(C, align(16))]
struct Outside {
    size: usize,
    seal: usize,
}

const OUTSIDE: usize = size_of::<Outside>();
const SEAL: usize = usize::MAX / 0xff * 0x6f;

impl Heap {
    fn allocate(&mut self, size: usize) -> Option<NonNull<u8>> {
        if let Some(block) = self.arena.as_mut().and_then(|arena| arena.allocate(size)) {
            return Some(block);
        }
        if self.refuses_overflow { None } else { self.allocate_outside(size) }
    }

    fn allocate_outside(&mut self, size: usize) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(OUTSIDE.checked_add(size)?, ALIGN).ok()?;
        // SAFETY: the layout is not of size zero; the header fits at the start of the block.
        unsafe {
            let header = NonNull::new(alloc_zeroed(layout))?.cast::<Outside>();
            header.write(Outside { size, seal: header.as_ptr() as usize ^ SEAL });
            self.overflow = self.overflow.saturating_add(size);
            self.overflows = self.overflows.saturating_add(1);
            Some(header.cast::<u8>().add(OUTSIDE))
        }
    }

    /// # Safety
    /// The block came from this heap, or from the library's own before [`install`].
    unsafe fn free(&mut self, block: NonNull<u8>) {
        // SAFETY: the caller's promise; `outside` tells whose block it is.
        unsafe {
            match &mut self.arena {
                Some(arena) if arena.contains(block.as_ptr() as usize) => arena.free(block),
                _ => {
                    let Some((header, layout)) = outside(block) else { return };
                    let size = (*header.as_ptr()).size;
                    block.write_bytes(0, size);
                    (*header.as_ptr()).seal = 0;
                    self.overflow = self.overflow.saturating_sub(size);
                    dealloc(header.as_ptr().cast(), layout);
                }
            }
        }
    }

    /// # Safety
    /// As for [`Heap::free`]; after `Some` only the new block may be used.
    unsafe fn reallocate(&mut self, block: NonNull<u8>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise; `outside` tells whose block it is.
        unsafe {
            if let Some(arena) = &mut self.arena
                && arena.contains(block.as_ptr() as usize)
                && let Some(moved) = arena.reallocate(block, size)
            {
                return Some(moved);
            }
            let held = self.held(block)?;
            let moved = self.allocate(size)?;
            moved.copy_from_nonoverlapping(block, held.min(size));
            self.free(block);
            Some(moved)
        }
    }

    /// # Safety
    /// As for [`Heap::free`].
    unsafe fn held(&self, block: NonNull<u8>) -> Option<usize> {
        // SAFETY: the caller's promise.
        unsafe {
            match &self.arena {
                Some(arena) if arena.contains(block.as_ptr() as usize) => Some(arena.held(block)),
                _ => outside(block).map(|(header, _)| (*header.as_ptr()).size),
            }
        }
    }
}

/// The header of a block that is outside the arena. `None` for one that the library allocated before
/// it had these functions: it can be neither freed nor resized here, and stays.
///
/// # Safety
/// `block` is a block of this heap, or of the library's own, which has a header of 16 bytes too: its
/// own word and that of `malloc`.
unsafe fn outside(block: NonNull<u8>) -> Option<(NonNull<Outside>, Layout)> {
    if !(block.as_ptr() as usize).is_multiple_of(ALIGN) {
        return None;
    }
    // SAFETY: both kinds of block have 16 readable bytes before them.
    unsafe {
        let header = block.sub(OUTSIDE).cast::<Outside>();
        if (*header.as_ptr()).seal != header.as_ptr() as usize ^ SEAL {
            return None;
        }
        let bytes = OUTSIDE.checked_add((*header.as_ptr()).size)?;
        Some((header, Layout::from_size_align(bytes, ALIGN).ok()?))
    }
}
