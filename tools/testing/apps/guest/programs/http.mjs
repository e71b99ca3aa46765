// Node's http and net against each other: http.mjs server ADDRESS on one host, http.mjs client ADDRESS on the other.
//
// The client prints NAME <tab> RESULT.
import http from 'node:http';
import net from 'node:net';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

const [role, host] = process.argv.slice(2);
const patience = 60_000;

function pattern(length) {
  const all = Buffer.alloc(length);
  let state = 2463534242;
  for (let i = 0; i < length; i++) {
    state ^= state << 13; state ^= state >>> 17; state ^= state << 5;
    all[i] = state & 255;
  }
  return all;
}
const sum = data => createHash('sha256').update(data).digest('hex');

async function read(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}

async function serve() {
  net.createServer({ allowHalfOpen: true }, socket => {
    socket.on('error', () => {});
    socket.pipe(socket);
  }).listen(9001, host);
  // Last, so that who sees it listen knows that both do.
  http.createServer(async (request, response) => {
    if (request.url === '/slow') {
      for (let i = 0; i < 50; i++) {
        response.write(`part ${i}\n`);
        await sleep(5);
      }
      response.end();
    } else if (request.url === '/large') {
      response.end(pattern(3_000_001));
    } else {
      response.end(sum(await read(request)));
    }
  }).listen(9002, host);
}

function connect(port) {
  const socket = net.connect({ port, host, allowHalfOpen: true });
  socket.setTimeout(patience, () => socket.destroy(new Error('nothing came for a minute')));
  return socket;
}

async function echo(length) {
  const data = pattern(length), socket = connect(9001);
  socket.end(data);
  const back = await read(socket);
  if (!back.equals(data)) throw new Error(`${back.length} bytes came back of ${length}, or others`);
}

function ask(path, options = {}, body) {
  return new Promise((resolve, reject) => {
    const request = http.request({ host, port: 9002, path, timeout: patience, ...options }, async response => {
      try { resolve(await read(response)); } catch (error) { reject(error); }
    });
    request.on('timeout', () => request.destroy(new Error('nothing came for a minute')));
    request.on('error', reject);
    request.end(body);
  });
}

const cases = {
  echo: () => echo(2_000_001),
  echo_of_nothing: () => echo(0),
  fifty_at_once: () => Promise.all(Array.from({ length: 50 }, (_, i) => echo(20_000 + i))),
  async post() {
    const data = pattern(1_000_000);
    const got = await ask('/sum', { method: 'POST' }, data);
    if (got.toString() !== sum(data)) throw new Error('another sum');
  },
  async large() {
    if (sum(await ask('/large')) !== sum(pattern(3_000_001))) throw new Error('another content');
  },
  async parts() {
    const lines = (await ask('/slow')).toString().split('\n').length - 1;
    if (lines !== 50) throw new Error(`${lines} parts`);
  },
  async keep_alive() {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let i = 0; i < 100; i++) {
      const got = await ask('/sum', { agent, method: 'POST' }, `${i}`);
      if (got.toString() !== sum(`${i}`)) throw new Error(`answer ${i} is another one`);
    }
    agent.destroy();
  },
  async refused() {
    const socket = connect(9999);
    const [error] = await once(socket, 'close').then(() => [null], error => [error]);
    if (error?.code !== 'ECONNREFUSED') throw new Error(`nobody listens, but: ${error?.code}`);
  },
  async destroyed() {
    const socket = connect(9001);
    await once(socket, 'connect');
    socket.write('x');
    await once(socket, 'data');
    socket.destroy();
    await once(socket, 'close');
  },
  async reset() {
    const socket = connect(9001);
    await once(socket, 'connect');
    socket.resetAndDestroy();
    await once(socket, 'close');
  },
};

if (role === 'server') {
  await serve();
} else {
  for (const [name, body] of Object.entries(cases)) {
    try {
      await body();
      console.log(`${name}\tok`);
    } catch (error) {
      console.log(`${name}\tfailed: ${error.message}`);
    }
  }
}
