//! Keys and values of the tokens that were already read, so that each new token costs one column.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData, s};
use temper_tensor::is_host;

use crate::config::ModelConfig;

/// The cache of every layer for one batch of left-padded rows.
#[derive(Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
}

impl KvCache {
    /// Room for `capacity` columns in each of the rows, of which the first `pads[row]` are never looked at.
    pub fn new(config: &ModelConfig, pads: &[usize], capacity: usize, device: &Device) -> Self {
        let layer = || LayerCache::new(config, pads, capacity, device);
        Self { layers: (0..config.n_layers).map(|_| layer()).collect() }
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
    fn new(config: &ModelConfig, pads: &[usize], capacity: usize, device: &Device) -> Self {
        if is_host(device) {
            let size = pads.len() * capacity * config.d_model;
            Self::Host(HostCache {
                keys: vec![0.0; size],
                values: vec![0.0; size],
                pads: pads.to_vec(),
                capacity,
                d_model: config.d_model,
                len: 0,
            })
        } else {
            let dims = [pads.len(), config.n_heads, capacity, config.d_head()];
            Self::Device(Box::new(DeviceCache {
                keys: Some(Tensor::zeros(dims, device)),
                values: Some(Tensor::zeros(dims, device)),
                pad_bias: DeviceCache::pad_bias(pads, capacity, device),
                len: 0,
            }))
        }
    }

    /// Takes the keys and values of the prompts: `[batch, n_heads, seq, d_head]` each.
    pub(crate) fn fill(&mut self, keys: Tensor<4>, values: Tensor<4>) {
        match self {
            Self::Host(cache) => cache.fill(keys, values),
            Self::Device(cache) => cache.push(keys, values),
        }
    }

    /// Adds one column and mixes the values that it attends to.
    ///
    /// # Shapes
    /// - `qkv`: `[batch, 1, 3 · d_model]`
    /// - output: `[batch, 1, d_model]`
    pub(crate) fn attend(&mut self, qkv: Tensor<3>, n_heads: usize) -> Tensor<3> {
        match self {
            Self::Host(cache) => cache.attend(qkv, n_heads),
            Self::Device(cache) => cache.attend(qkv, n_heads),
        }
    }

    fn keep_rows(&mut self, rows: &[usize]) {
        match self {
            Self::Host(cache) => cache.keep_rows(rows),
            Self::Device(cache) => cache.keep_rows(rows),
        }
    }
}

/// `[row, column, d_model]` in host memory.
#[derive(Debug)]
pub(crate) struct HostCache {
    keys: Vec<f32>,
    values: Vec<f32>,
    pads: Vec<usize>,
    capacity: usize,
    d_model: usize,
    len: usize,
}

impl HostCache {
    fn fill(&mut self, keys: Tensor<4>, values: Tensor<4>) {
        let [batch, _, seq, _] = keys.dims();
        let flat = |t: Tensor<4>| t.swap_dims(1, 2).reshape([batch, seq * self.d_model]).into_data();
        let (keys, values) = (flat(keys), flat(values));
        for (cache, new) in [(&mut self.keys, keys), (&mut self.values, values)] {
            let new = new.as_slice::<f32>().expect("the cache holds f32");
            let row_len = seq * self.d_model;
            for row in 0..batch {
                let start = row * self.capacity * self.d_model;
                cache[start..start + row_len].copy_from_slice(&new[row * row_len..(row + 1) * row_len]);
            }
        }
        self.len = seq;
    }

    fn attend(&mut self, qkv: Tensor<3>, n_heads: usize) -> Tensor<3> {
        let device = qkv.device();
        let (batch, d_model, d_head) = (self.pads.len(), self.d_model, self.d_model / n_heads);
        let qkv = qkv.into_data();
        let qkv = qkv.as_slice::<f32>().expect("the cache holds f32");
        let scale = 1.0 / (d_head as f32).sqrt();
        let mut mixed = vec![0.0; batch * d_model];
        let mut probs = vec![0.0; self.len + 1];
        for row in 0..batch {
            let [q, k, v] = [0, 1, 2].map(|part| &qkv[(3 * row + part) * d_model..][..d_model]);
            let start = row * self.capacity * d_model;
            let new = start + self.len * d_model;
            self.keys[new..new + d_model].copy_from_slice(k);
            self.values[new..new + d_model].copy_from_slice(v);
            let columns = start + self.pads[row] * d_model..new + d_model;
            let (keys, values) = (&self.keys[columns.clone()], &self.values[columns]);
            for head in 0..n_heads {
                let slice = head * d_head..(head + 1) * d_head;
                let out = &mut mixed[row * d_model..][slice.clone()];
                attend_head(&q[slice.clone()], keys, values, slice.start, d_model, scale, &mut probs, out);
            }
        }
        self.len += 1;
        Tensor::from_data(TensorData::new(mixed, [batch, 1, d_model]), &device)
    }

    fn keep_rows(&mut self, rows: &[usize]) {
        let row_len = self.capacity * self.d_model;
        let used = self.len * self.d_model;
        for cache in [&mut self.keys, &mut self.values] {
            let mut kept = vec![0.0; rows.len() * row_len];
            for (new, &old) in rows.iter().enumerate() {
                kept[new * row_len..][..used].copy_from_slice(&cache[old * row_len..][..used]);
            }
            *cache = kept;
        }
        self.pads = rows.iter().map(|&row| self.pads[row]).collect();
    }
}

/// One head of one row: softmax(q · kᵢ · scale) over the columns, then the mix of their values.
#[allow(clippy::too_many_arguments)] // The innermost kernel: a struct around these would only rename them.
fn attend_head(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    offset: usize,
    stride: usize,
    scale: f32,
    probs: &mut [f32],
    out: &mut [f32],
) {
    let n = keys.len() / stride;
    let mut max = f32::NEG_INFINITY;
    for (prob, key) in probs.iter_mut().zip(keys.chunks_exact(stride)) {
        let key = &key[offset..offset + q.len()];
        let mut lanes = [0.0f32; 8]; // Independent sums, so that the compiler may use vector registers.
        for (a, b) in q.chunks_exact(8).zip(key.chunks_exact(8)) {
            for lane in 0..8 {
                lanes[lane] += a[lane] * b[lane];
            }
        }
        let tail = q.len() / 8 * 8;
        let rest: f32 = q[tail..].iter().zip(&key[tail..]).map(|(a, b)| a * b).sum();
        *prob = (lanes.iter().sum::<f32>() + rest) * scale;
        max = max.max(*prob);
    }
    let mut sum = 0.0;
    for prob in &mut probs[..n] {
        *prob = (*prob - max).exp();
        sum += *prob;
    }
    for (prob, value) in probs.iter().zip(values.chunks_exact(stride)) {
        let weight = prob / sum;
        for (o, v) in out.iter_mut().zip(&value[offset..]) {
            *o += weight * v;
        }
    }
}

/// `[row, n_heads, column, d_head]` on a GPU.
#[derive(Debug)]
pub(crate) struct DeviceCache {
    keys: Option<Tensor<4>>,
    values: Option<Tensor<4>>,
    pad_bias: Tensor<4>, // [row, 1, 1, column]
    len: usize,
}

impl DeviceCache {
    fn pad_bias(pads: &[usize], capacity: usize, device: &Device) -> Tensor<4> {
        let hidden = |&pad: &usize| {
            (0..capacity).map(move |column| if column < pad { f32::NEG_INFINITY } else { 0.0 })
        };
        let bias: Vec<f32> = pads.iter().flat_map(hidden).collect();
        Tensor::from_data(TensorData::new(bias, [pads.len(), 1, 1, capacity]), device)
    }

    /// Writes the new columns in place: nothing else may hold the tensors, hence the `Option`s.
    fn push(&mut self, keys: Tensor<4>, values: Tensor<4>) {
        let end = self.len + keys.dims()[2];
        let write = |cache: &mut Option<Tensor<4>>, new| {
            let old = cache.take().expect("put back after every write");
            *cache = Some(old.slice_assign(s![.., .., self.len..end, ..], new));
        };
        write(&mut self.keys, keys);
        write(&mut self.values, values);
        self.len = end;
    }

    fn attend(&mut self, qkv: Tensor<3>, n_heads: usize) -> Tensor<3> {
        let [batch, _, width] = qkv.dims();
        let (d_model, d_head) = (width / 3, width / 3 / n_heads);
        let mut parts =
            qkv.chunk(3, 2).into_iter().map(|part| part.reshape([batch, 1, n_heads, d_head]).swap_dims(1, 2));
        let mut next = || parts.next().expect("three parts were cut");
        let (q, k, v) = (next().div_scalar((d_head as f64).sqrt()), next(), next());
        self.push(k, v);
        let used = |cache: &Option<Tensor<4>>| {
            cache.clone().expect("put back after every write").narrow(2, 0, self.len)
        };
        let bias = self.pad_bias.clone().narrow(3, 0, self.len);
        let scores = q.matmul(used(&self.keys).swap_dims(2, 3)) + bias; // [batch, n_heads, 1, len]
        softmax(scores, 3).matmul(used(&self.values)).swap_dims(1, 2).reshape([batch, 1, d_model])
    }

    fn keep_rows(&mut self, rows: &[usize]) {
        let device = self.pad_bias.device();
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let rows = Tensor::from_data(TensorData::new(rows.clone(), [rows.len()]), &device);
        let select = |cache: &mut Option<Tensor<4>>| {
            *cache = cache.take().map(|cache| cache.select(0, rows.clone()));
        };
        select(&mut self.keys);
        select(&mut self.values);
        self.pad_bias = self.pad_bias.clone().select(0, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelConfig;

    /// Both caches see the same columns; the device one is made of tensor operations only.
    #[test]
    fn the_host_cache_equals_the_device_cache() {
        let device = Device::flex();
        let config =
            ModelConfig { d_model: 24, n_heads: 2, n_layers: 1, ..ModelConfig::preset("tiny").unwrap() };
        let pads = [2, 0, 1];
        let mut host = LayerCache::new(&config, &pads, 8, &device);
        let dims = [3, 2, 8, 12];
        let mut on_device = LayerCache::Device(Box::new(DeviceCache {
            keys: Some(Tensor::zeros(dims, &device)),
            values: Some(Tensor::zeros(dims, &device)),
            pad_bias: DeviceCache::pad_bias(&pads, 8, &device),
            len: 0,
        }));
        assert!(matches!(host, LayerCache::Host(_)));
        let wave =
            |n: usize, phase: f32| -> Vec<f32> { (0..n).map(|i| (i as f32 * 0.7 + phase).sin()).collect() };
        let prompt = |phase| {
            Tensor::<4>::from_data(TensorData::new(wave(3 * 2 * 4 * 12, phase), [3, 2, 4, 12]), &device)
        };
        for cache in [&mut host, &mut on_device] {
            cache.fill(prompt(0.0), prompt(1.0));
        }
        let mut rows = 3;
        for step in 0..4 {
            let qkv = || {
                Tensor::<3>::from_data(TensorData::new(wave(rows * 72, step as f32), [rows, 1, 72]), &device)
            };
            let (a, b) = (host.attend(qkv(), 2), on_device.attend(qkv(), 2));
            let difference: f32 = (a - b).abs().max().into_scalar();
            assert!(difference < 1e-5, "step {step}: {difference}");
            if step == 1 {
                host.keep_rows(&[2, 0]);
                on_device.keep_rows(&[2, 0]);
                rows = 2;
            }
        }
    }
}
