//! Attention from its description.

use crate::call::{Mask, Scores};
use crate::io::Io;
use kernels::Error;
use kernels::attention::{Attention, Heads, ScoreMask, attention};

impl Scores {
    /// Runs on queries, keys, values and, perhaps, a mask.
    pub fn run(&self, io: &Io) -> Result<(), Error> {
        let y: &mut [f32] = io.output(0);
        // A product over no keys is zero.
        if self.keys == 0 {
            y.fill(0.0);
            return Ok(());
        }
        let truth: Vec<f32> = match &self.mask {
            Some(m) if m.truth => io.input::<u8>(3).iter().map(|&b| m.weight(b != 0)).collect(),
            _ => Vec::new(),
        };
        let mask = self.mask.as_ref().map(|m| {
            let [batch, head, query, key] = m.strides;
            let data = if m.truth { &truth[..] } else { io.input(3) };
            ScoreMask { data, fill: m.fill, batch, head, query, key }
        });
        let a = Attention {
            q: Heads { data: io.input(0), strides: self.q },
            k: Heads { data: io.input(1), strides: self.k },
            v: Heads { data: io.input(2), strides: self.v },
            mask,
            causal: self.causal,
            scale: self.scale,
            softcap: self.softcap,
            batch: self.batch,
            heads: self.heads,
            kv_heads: self.kv_heads,
            queries: self.queries,
            keys: self.keys,
            dim: self.dim,
            value_dim: self.value_dim,
            unseen: self.unseen,
            guard: self.guard,
        };
        attention(io.pool, &a, y, self.y)
    }
}

impl Mask {
    /// A truth value as the kernel's mask: chosen or not, or added.
    fn weight(&self, seen: bool) -> f32 {
        match (self.fill, seen) {
            (Some(_), seen) => f32::from(u8::from(seen)),
            (None, true) => 0.0,
            (None, false) => f32::NEG_INFINITY,
        }
    }
}
