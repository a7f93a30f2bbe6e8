//! Mapped memory: anonymous on huge or ordinary pages, or somebody's file.

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;

use memmap2::{Mmap, MmapMut, MmapOptions};

/// What pages a mapping got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pages {
    /// 2 MiB pages.
    Huge,
    /// 4 KiB pages, as asked.
    Ordinary,
    /// 4 KiB pages although huge ones were asked for; the text says why and what to do.
    Fallback(String),
}

/// Memory could not be mapped.
#[derive(Debug, thiserror::Error)]
#[error("cannot map {bytes} bytes for frames: {source}; lower the region's size or free some memory")]
pub struct MemoryError {
    /// How much was asked for.
    pub bytes: usize,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// A stretch of mapped memory, or of the heap. A handle: clones name the same mapping, which goes with the last of them.
#[derive(Clone)]
pub struct Memory {
    base: NonNull<u8>,
    bytes: usize,
    pages: Pages,
    writable: bool,
    _mapping: Rc<Mapping>,
}

/// Keeps the mapping alive; never read through.
pub(crate) enum Mapping {
    ReadWrite(#[allow(dead_code)] MmapMut),
    ReadOnly(#[allow(dead_code)] Mmap),
    Heap(#[allow(dead_code)] Vec<u8>),
}

const HUGE_PAGE_BYTES: usize = 2 << 20;
const PAGE_BYTES: usize = 4096;

impl Memory {
    /// Anonymous zeroed memory of at least `bytes` bytes; on huge pages if asked and possible.
    ///
    /// # Errors
    /// If the system has no memory to give. A lack of huge pages is not an error: see [`Memory::pages`].
    pub fn anonymous(bytes: usize, huge_pages: bool) -> Result<Memory, MemoryError> {
        Memory::map(bytes, huge_pages, MmapOptions::new().populate())
    }

    /// As [`Memory::anonymous`], but ordinary pages are not there before they are touched.
    ///
    /// # Errors
    /// If the system has no room for the mapping.
    pub fn anonymous_untouched(bytes: usize, huge_pages: bool) -> Result<Memory, MemoryError> {
        Memory::map(bytes, huge_pages, &mut MmapOptions::new())
    }

    fn map(bytes: usize, huge_pages: bool, ordinary: &mut MmapOptions) -> Result<Memory, MemoryError> {
        let mut pages = Pages::Ordinary;
        if huge_pages {
            let rounded = bytes.next_multiple_of(HUGE_PAGE_BYTES);
            match MmapOptions::new().len(rounded).huge(Some(21)).populate().map_anon() {
                Ok(mapping) => return Ok(Memory::read_write(mapping, Pages::Huge)),
                Err(error) => {
                    pages = Pages::Fallback(format!(
                        "no huge pages ({error}): raise /proc/sys/vm/nr_hugepages by {}",
                        rounded / HUGE_PAGE_BYTES
                    ));
                }
            }
        }
        match ordinary.len(bytes.max(1)).map_anon() {
            Ok(mapping) => Ok(Memory::read_write(mapping, pages)),
            Err(source) => Err(MemoryError { bytes, source }),
        }
    }

    /// The first `bytes` bytes of `file`, to be written by this process and read by others. They are not touched yet.
    ///
    /// # Errors
    /// If the file cannot be mapped.
    ///
    /// # Safety
    /// The file must not be truncated below `bytes` while the memory lives (a touch would kill the process), and no
    /// other process may write what this one reads as frames it owns.
    pub unsafe fn shared_writable(file: &File, bytes: usize) -> Result<Memory, MemoryError> {
        // SAFETY: the caller keeps the file at its size; writers are excluded by the caller's contract.
        let mapping = unsafe { MmapOptions::new().len(bytes).map_mut(file) };
        match mapping {
            Ok(mapping) => Ok(Memory::read_write(mapping, Pages::Ordinary)),
            Err(source) => Err(MemoryError { bytes, source }),
        }
    }

    /// The first `bytes` bytes of `file`, written by another process and only read by this one. They are not touched yet.
    ///
    /// # Errors
    /// If the file cannot be mapped.
    ///
    /// # Safety
    /// As for [`Memory::shared_writable`]; and whoever reads bytes that the other process may still write must do so
    /// through atomics, or trust that process (design section 7: members on one host are one trust domain for payload
    /// bytes).
    pub unsafe fn shared_readable(file: &File, bytes: usize) -> Result<Memory, MemoryError> {
        // SAFETY: the caller keeps the file at its size and knows who writes it.
        let mapping = unsafe { MmapOptions::new().len(bytes).map(file) };
        match mapping {
            Ok(mapping) => Ok(Memory {
                base: NonNull::new(mapping.as_ptr().cast_mut()).expect("a mapping is not at zero"),
                bytes: mapping.len(),
                pages: Pages::Ordinary,
                writable: false,
                _mapping: Rc::new(Mapping::ReadOnly(mapping)),
            }),
            Err(source) => Err(MemoryError { bytes, source }),
        }
    }

    /// Memory that somebody else allocated, as it is; only read from here on.
    pub(super) fn heap(mut bytes: Vec<u8>) -> Memory {
        Memory {
            base: NonNull::new(bytes.as_mut_ptr()).expect("a vector is not at zero"),
            bytes: bytes.len(),
            pages: Pages::Ordinary,
            writable: false,
            _mapping: Rc::new(Mapping::Heap(bytes)),
        }
    }

    fn read_write(mut mapping: MmapMut, pages: Pages) -> Memory {
        Memory {
            base: NonNull::new(mapping.as_mut_ptr()).expect("a mapping is not at zero"),
            bytes: mapping.len(),
            pages,
            writable: true,
            _mapping: Rc::new(Mapping::ReadWrite(mapping)),
        }
    }

    /// Makes the pages from `offset`, `bytes` bytes of them, ready for the first access. What does not work is left to
    /// that access.
    pub fn touch(&self, offset: usize, bytes: usize) {
        let from = offset.min(self.bytes) & !(PAGE_BYTES - 1);
        let bytes = bytes.min(self.bytes - from);
        let advice = if self.writable { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
        // SAFETY: the range lies in the mapping, whose content does not change.
        unsafe { libc::madvise(self.base.as_ptr().add(from).cast(), bytes, advice) };
    }

    /// Whether there are other handles.
    pub(crate) fn is_shared(&self) -> bool {
        Rc::strong_count(&self._mapping) > 1
    }

    /// What is to be dropped to unmap the memory, wherever that may take its time; none if there are other handles.
    pub(crate) fn into_mapping(self) -> Option<Mapping> {
        Rc::into_inner(self._mapping)
    }

    /// Where the memory begins.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// How much there is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What pages it is on.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Whether this process may write it.
    pub fn writable(&self) -> bool {
        self.writable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_and_large_enough() {
        let memory = Memory::anonymous(100_000, false).unwrap();
        assert!(memory.bytes() >= 100_000);
        assert_eq!(memory.pages(), &Pages::Ordinary);
        // SAFETY: the byte is inside the mapping, which nobody else uses.
        assert_eq!(unsafe { memory.base().add(99_999).read() }, 0);
    }

    #[test]
    fn a_lack_of_huge_pages_is_reported_and_survived() {
        let memory = Memory::anonymous(1 << 47, true);
        // More than the address space is nowhere to be had: either the fall-back got ordinary pages, or even that failed.
        match memory {
            Ok(memory) => {
                assert!(matches!(memory.pages(), Pages::Fallback(why) if why.contains("nr_hugepages")))
            }
            Err(error) => assert!(error.to_string().contains("lower the region's size")),
        }
    }
}
