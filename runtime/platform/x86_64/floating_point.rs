//! How the processor rounds and which floating-point exceptions trap: MXCSR and the x87 control word.
//!
//! Called by `coroutine` around each stack switch. They belong to a thread (fenv(3)), but a stack switch
//! leaves them as they are; without this, one green thread's `fesetround` would round the others' sums.

use std::arch::asm;

/// The two control registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FloatingPoint {
    mxcsr: u32,
    x87: u16,
}

/// What a process starts with (System V ABI, "Initial state"): round to nearest, no traps.
const INITIAL: FloatingPoint = FloatingPoint {
    mxcsr: 0x1f80,
    x87: 0x037f,
};

/// MXCSR's exception flags: results, not controls.
const FLAGS: u32 = 0x3f;

impl FloatingPoint {
    /// What a process starts with.
    pub(crate) fn initial() -> Self {
        INITIAL
    }

    /// What is in force.
    #[inline]
    pub(crate) fn current() -> Self {
        let (mut mxcsr, mut x87) = (0_u32, 0_u16);
        // SAFETY: both instructions write the control register to the operand and do nothing else.
        unsafe {
            asm!(
                "stmxcsr [{mxcsr}]",
                "fnstcw [{x87}]",
                mxcsr = in(reg) &raw mut mxcsr,
                x87 = in(reg) &raw mut x87,
                options(nostack, preserves_flags),
            );
        }
        Self { mxcsr, x87 }
    }

    /// Puts it in force, if something else is: loading is far slower than looking.
    #[inline]
    pub(crate) fn restore(self) {
        let current = Self::current();
        if (current.mxcsr ^ self.mxcsr) & !FLAGS != 0 || current.x87 != self.x87 {
            self.load();
        }
    }

    #[cold]
    fn load(self) {
        // SAFETY: the values came from `current` or are the initial ones, so no reserved bit is set.
        unsafe {
            asm!(
                "ldmxcsr [{mxcsr}]",
                "fldcw [{x87}]",
                mxcsr = in(reg) &raw const self.mxcsr,
                x87 = in(reg) &raw const self.x87,
                options(nostack, preserves_flags, readonly),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FLAGS, FloatingPoint, INITIAL};

    #[test]
    fn a_thread_starts_with_the_initial_state() {
        let current = FloatingPoint::current();
        assert_eq!(current.mxcsr & !FLAGS, INITIAL.mxcsr);
        assert_eq!(current.x87, INITIAL.x87);
    }

    #[test]
    fn restoring_brings_the_rounding_back() {
        let before = FloatingPoint::current();
        let towards_zero = FloatingPoint {
            mxcsr: before.mxcsr | 0x6000,
            x87: before.x87 | 0x0c00,
        };
        towards_zero.restore();
        assert_eq!(FloatingPoint::current().x87, towards_zero.x87);
        before.restore();
        assert_eq!(FloatingPoint::current().x87, before.x87);
        assert_eq!(
            FloatingPoint::current().mxcsr & !FLAGS,
            before.mxcsr & !FLAGS
        );
    }
}
