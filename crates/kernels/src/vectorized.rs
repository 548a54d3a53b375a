//! Functions that are compiled for the vector instructions of several processors.

/// Declares a function whose body is compiled once for each set of vector instructions that this processor family may have
/// (on x86-64 SSE2, AVX2 with fused products, and AVX-512); a call takes the best that there is.
///
/// A closure would not do: the compiler may leave it outside of the code for a set, with the oldest instructions. What the
/// body calls must be `#[inline(always)]` for the same reason.
macro_rules! vectorized {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident<$life:lifetime>(
        $($argument:ident: $type:ty),* $(,)?
    ) $(-> $output:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)] // What a kernel reads and writes; a struct around it would only rename it.
        $visibility fn $name<$life>($($argument: $type),*) $(-> $output)? {
            struct Body<$life> {
                $($argument: $type),*
            }
            impl<$life> pulp::WithSimd for Body<$life> {
                type Output = crate::vectorized::output!($($output)?);

                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
                    let Self { $($argument),* } = self;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Body { $($argument),* })
        }
    };
}

/// The type that a function returns.
macro_rules! output {
    () => {
        ()
    };
    ($type:ty) => {
        $type
    };
}

pub(crate) use {output, vectorized};
