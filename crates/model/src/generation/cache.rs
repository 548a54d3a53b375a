//! Keys and values of the tokens that were already read, so that each new token costs one column.

use burn::tensor::{Device, Tensor, s};

use crate::config::ModelConfig;
use crate::layers::attention::Projected;
use crate::visibility::HIDDEN;
use temper_kernels::{attend_query, attention};
use temper_tensor::{floats, ints, is_host};

/// The cache of every layer for one batch of left-padded rows.
#[derive(Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
}

/// Where a batch is decoded: decides how, and changes nothing but rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the CPU: whatever is in one pass over host memory.
    Host,
    /// On a graphics card: as few transfers as possible.
    Device,
}

impl Place {
    /// The faster one.
    pub(crate) fn of(device: &Device) -> Self {
        if is_host(device) { Self::Host } else { Self::Device }
    }
}

impl KvCache {
    /// Room for `capacity` columns in each row. The first `pads[row]` of them are never looked at.
    pub(crate) fn new(
        place: Place,
        config: &ModelConfig,
        pads: &[usize],
        capacity: usize,
        device: &Device,
    ) -> Self {
        let layer = || LayerCache::new(place, config, pads, capacity, device);
        Self { layers: (0..config.n_layers).map(|_| layer()).collect() }
    }

    /// Makes row i a copy of what is row `source[i]` now.
    pub fn repeat_rows(&mut self, source: &[usize]) {
        self.layers.iter_mut().for_each(|layer| layer.repeat_rows(source));
    }

    /// Keeps these rows, in this order, and forgets the others: rows that have ended cost nothing more.
    pub fn keep_rows(&mut self, rows: &[usize]) {
        self.layers.iter_mut().for_each(|layer| layer.keep_rows(rows));
    }
}

/// Keys and values of one layer.
///
/// On a CPU the new column is attended in one pass over host memory: tensor operations would copy the whole
/// cache at each step (a narrowed view is made contiguous first). On a GPU everything stays on the device.
#[derive(Debug)]
pub(crate) enum LayerCache {
    Host(HostCache),
    Device(Box<DeviceCache>),
}

impl LayerCache {
    fn new(place: Place, config: &ModelConfig, pads: &[usize], capacity: usize, device: &Device) -> Self {
        let (n_kv_heads, d_head) = (config.n_kv_heads(), config.d_head());
        match place {
            Place::Host => Self::Host(HostCache::new(n_kv_heads * d_head, pads, capacity)),
            Place::Device => {
                Self::Device(Box::new(DeviceCache::new(n_kv_heads, d_head, pads, capacity, device)))
            }
        }
    }

    /// Keeps the keys and values of some new columns, and mixes the values that their queries attend to.
    ///
    /// # Shapes
    /// - `projected`: `[batch, seq, …]`
    /// - `bias`: of the columns of the prompts, which come first, `[batch, 1, seq, seq]`; `None` for one column after
    ///   them, which sees all columns of its row but the pads
    /// - output: `[batch, seq, n_heads · d_head]`
    pub(crate) fn attend(&mut self, projected: Projected, bias: Option<&Tensor<4>>) -> Tensor<3> {
        let Some(bias) = bias else {
            return match self {
                Self::Host(cache) => cache.attend_column(projected),
                Self::Device(cache) => cache.attend_column(projected),
            };
        };
        match self {
            Self::Host(cache) => cache.fill(projected.clone()),
            Self::Device(cache) => cache.fill(projected.clone()),
        }
        projected.mix(bias.clone())
    }

    /// Keeps the keys and values of one new column, whose `projected` rows are queries, keys and values side by side, and
    /// writes the values that the queries attend to.
    ///
    /// # Panics
    /// If the cache is not in host memory.
    pub(crate) fn attend_rows(
        &mut self,
        projected: &[f32],
        q_width: usize,
        d_head: usize,
        mixed: &mut Vec<f32>,
    ) {
        match self {
            Self::Host(cache) => cache.attend_rows(projected, q_width, d_head, mixed),
            Self::Device(_) => panic!("rows of numbers are for a cache in host memory"),
        }
    }

    fn repeat_rows(&mut self, source: &[usize]) {
        match self {
            Self::Host(cache) => cache.repeat_rows(source),
            Self::Device(cache) => cache.select_rows(source),
        }
    }

    fn keep_rows(&mut self, rows: &[usize]) {
        match self {
            Self::Host(cache) => cache.keep_rows(rows),
            Self::Device(cache) => cache.select_rows(rows),
        }
    }
}

/// `[slot, column, n_kv_heads · d_head]` in host memory. A row keeps its slot until the batch ends.
#[derive(Debug)]
pub(crate) struct HostCache {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// The slot of each row that is left.
    slots: Vec<usize>,
    /// Pads of each row that is left.
    pads: Vec<usize>,
    capacity: usize,
    /// Numbers of one column.
    width: usize,
    len: usize,
}

impl HostCache {
    fn new(width: usize, pads: &[usize], capacity: usize) -> Self {
        let zeros = || vec![0.0; pads.len() * capacity * width];
        let slots = (0..pads.len()).collect();
        Self { keys: zeros(), values: zeros(), slots, pads: pads.to_vec(), capacity, width, len: 0 }
    }

    /// Takes the keys and values of the prompts.
    fn fill(&mut self, projected: Projected) {
        let columns = projected.read();
        for row in 0..columns.batch {
            for column in 0..columns.seq {
                let [_, keys, values] = columns.column(row, column);
                self.write(row, column, keys, values);
            }
        }
        self.len = columns.seq;
    }

    fn write(&mut self, row: usize, column: usize, keys: &[f32], values: &[f32]) {
        let start = (self.slots[row] * self.capacity + column) * self.width;
        self.keys[start..start + self.width].copy_from_slice(keys);
        self.values[start..start + self.width].copy_from_slice(values);
    }

    fn attend_column(&mut self, projected: Projected) -> Tensor<3> {
        let (device, d_head) = (projected.fused.device(), projected.d_head());
        let new = projected.read();
        assert_eq!(new.seq, 1, "one column at a time");
        let mut mixed = Vec::new();
        self.attend_rows(new.numbers(), new.q_width, d_head, &mut mixed);
        let dims = [new.batch, 1, new.q_width];
        floats(mixed, dims, &device)
    }

    fn attend_rows(&mut self, projected: &[f32], q_width: usize, d_head: usize, mixed: &mut Vec<f32>) {
        let width = self.width;
        let rows = projected.chunks_exact(q_width + 2 * width);
        let group = q_width / width;
        mixed.clear();
        mixed.resize(rows.len() * q_width, 0.0);
        let mut probs = vec![0.0; self.len + 1];
        for (row, projected) in rows.enumerate() {
            let (queries, new) = projected.split_at(q_width);
            let (keys, values) = new.split_at(width);
            self.write(row, self.len, keys, values);
            let start = self.slots[row] * self.capacity * width;
            let columns = start + self.pads[row] * width..start + (self.len + 1) * width;
            let (keys, values) = (&self.keys[columns.clone()], &self.values[columns]);
            let probs = &mut probs[self.pads[row]..];
            let of_row = &mut mixed[row * q_width..][..q_width];
            for (head, (query, mixed)) in
                queries.chunks_exact(d_head).zip(of_row.chunks_exact_mut(d_head)).enumerate()
            {
                let offset = head / group * d_head;
                attend_query(query, &keys[offset..], &values[offset..], width, probs, mixed);
            }
        }
        self.len += 1;
    }

    fn repeat_rows(&mut self, source: &[usize]) {
        let (slot_len, used) = (self.capacity * self.width, self.len * self.width);
        for cache in [&mut self.keys, &mut self.values] {
            let mut copies = vec![0.0; source.len() * slot_len];
            for (copy, &row) in copies.chunks_exact_mut(slot_len).zip(source) {
                copy[..used].copy_from_slice(&cache[self.slots[row] * slot_len..][..used]);
            }
            *cache = copies;
        }
        self.pads = source.iter().map(|&row| self.pads[row]).collect();
        self.slots = (0..source.len()).collect();
    }

    fn keep_rows(&mut self, rows: &[usize]) {
        self.slots = rows.iter().map(|&row| self.slots[row]).collect();
        self.pads = rows.iter().map(|&row| self.pads[row]).collect();
    }
}

/// `[row, n_kv_heads, column, d_head]` on a GPU.
///
/// Attention reads whole stretches of columns, and a bias hides those that are not written yet: a stretch is a view of the
/// cache, because its end is aligned in memory, and any other part of the cache would be copied for each token.
#[derive(Debug)]
pub(crate) struct DeviceCache {
    keys: Option<Tensor<4>>,
    values: Option<Tensor<4>>,
    bias: Option<Tensor<4>>, // [row, 1, 1, column]
    pads: Vec<usize>,
    capacity: usize,
    len: usize,
}

impl DeviceCache {
    /// Columns of a stretch. So many numbers take a multiple of 256 bytes, the greatest alignment that a card asks for.
    const STRETCH: usize = 64;

    fn new(n_kv_heads: usize, d_head: usize, pads: &[usize], capacity: usize, device: &Device) -> Self {
        let capacity = capacity.next_multiple_of(Self::STRETCH);
        let dims = [pads.len(), n_kv_heads, capacity, d_head];
        Self {
            keys: Some(Tensor::zeros(dims, device)),
            values: Some(Tensor::zeros(dims, device)),
            bias: Some(Tensor::full([pads.len(), 1, 1, capacity], HIDDEN, device)),
            pads: pads.to_vec(),
            capacity,
            len: 0,
        }
    }

    /// Takes the keys and values of the prompts.
    fn fill(&mut self, projected: Projected) {
        let [_, keys, values] = projected.split();
        let (seq, device) = (keys.dims()[2], keys.device());
        let bias_of = |&pad: &usize| (0..seq).map(move |column| if column < pad { HIDDEN } else { 0.0 });
        let bias: Vec<f32> = self.pads.iter().flat_map(bias_of).collect();
        let bias = floats(bias, [self.pads.len(), 1, 1, seq], &device);
        self.push(keys, values, bias);
    }

    /// Writes the new columns in place: nothing else may hold the tensors, hence the `Option`s.
    fn push(&mut self, keys: Tensor<4>, values: Tensor<4>, bias: Tensor<4>) {
        let columns = self.len..self.len + keys.dims()[2];
        let write = |cache: &mut Option<Tensor<4>>, place, new| {
            *cache = Some(taken(cache).slice_assign(place, new));
        };
        write(&mut self.keys, s![.., .., columns.clone(), ..], keys);
        write(&mut self.values, s![.., .., columns.clone(), ..], values);
        write(&mut self.bias, s![.., .., .., columns.clone()], bias);
        self.len = columns.end;
    }

    fn attend_column(&mut self, projected: Projected) -> Tensor<3> {
        let [q, k, v] = projected.split();
        let shown = Tensor::zeros([q.dims()[0], 1, 1, 1], &q.device());
        self.push(k, v, shown);
        let n_columns = self.len.next_multiple_of(Self::STRETCH);
        let used = |cache: &Option<Tensor<4>>, dim| {
            let cache = cache.clone().expect("put back after every write");
            if n_columns < self.capacity { cache.narrow(dim, 0, n_columns) } else { cache }
        };
        attention(q, used(&self.keys, 2), used(&self.values, 2), used(&self.bias, 3), |probs| probs)
    }

    /// Copies these rows, in this order.
    fn select_rows(&mut self, rows: &[usize]) {
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        for cache in [&mut self.keys, &mut self.values, &mut self.bias] {
            let all = taken(cache);
            let rows = ints(rows.clone(), [rows.len()], &all.device());
            *cache = Some(all.select(0, rows));
        }
    }
}

fn taken(cache: &mut Option<Tensor<4>>) -> Tensor<4> {
    cache.take().expect("put back after every write")
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn wave(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.7 + phase).sin()).collect()
    }

    /// What becomes of the rows after a column.
    enum Then<'a> {
        Nothing,
        Keep(&'a [usize]),
        Repeat(&'a [usize]),
    }

    /// Both caches see the same columns; the device one is made of tensor operations only. With as many heads of keys
    /// and values as of queries, and with half as many.
    #[test]
    fn the_host_cache_equals_the_device_cache() {
        let device = Device::flex();
        let (pads, d_head, n_heads) = ([2, 0, 1], 12, 4);
        for n_kv_heads in [4, 2] {
            let mut host = LayerCache::Host(HostCache::new(n_kv_heads * d_head, &pads, 140));
            let on_device = DeviceCache::new(n_kv_heads, d_head, &pads, 140, &device);
            let mut on_device = LayerCache::Device(Box::new(on_device));
            let projected = |rows: usize, seq: usize, phase: f32| {
                let dims = [rows, seq, (n_heads + 2 * n_kv_heads) * d_head];
                let values = TensorData::new(wave(dims.iter().product(), phase), dims);
                Projected { fused: Tensor::from_data(values, &device), n_heads, n_kv_heads }
            };
            let mut compare =
                |projected: &dyn Fn() -> Projected, bias: Option<&Tensor<4>>, then: Then<'_>| {
                    let (a, b) = (host.attend(projected(), bias), on_device.attend(projected(), bias));
                    let difference: f32 = (a - b).abs().max().into_scalar();
                    assert!(difference < 1e-5, "{n_kv_heads} heads: {difference}");
                    for cache in [&mut host, &mut on_device] {
                        match then {
                            Then::Nothing => {}
                            Then::Keep(rows) => cache.keep_rows(rows),
                            Then::Repeat(rows) => cache.repeat_rows(rows),
                        }
                    }
                };
            let bias = Tensor::zeros([3, 1, 4, 4], &device);
            compare(&|| projected(3, 4, 0.5), Some(&bias), Then::Nothing);
            compare(&|| projected(3, 1, 1.0), None, Then::Nothing);
            compare(&|| projected(3, 1, 2.0), None, Then::Keep(&[2, 0]));
            compare(&|| projected(2, 1, 3.0), None, Then::Nothing);
            compare(&|| projected(2, 1, 4.0), None, Then::Repeat(&[1, 1, 0]));
            compare(&|| projected(3, 1, 5.0), None, Then::Nothing);
            // Beyond a stretch, and into the last one.
            for column in 0..130 {
                compare(&|| projected(3, 1, 6.0 + column as f32), None, Then::Nothing);
            }
        }
    }
}
