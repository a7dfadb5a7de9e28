// Runs inside the installation container, in images with node: forwards a loopback port to the proxy's unix socket,
// for package managers that support proxies only by host and port; then runs the command and exits as it does.
//
//   node forward.mjs SOCKET PORT -- argv...
//
// Exit codes: the command's own, 128 + signal if one killed it, 126 or 127 if it cannot be run, 70 if the port is not
// available, 64 for wrong usage.
import { spawn } from 'node:child_process';
import { createServer, connect } from 'node:net';
import { constants } from 'node:os';

const [socketPath, port, separator, command, ...args] = process.argv.slice(2);

function leave(code, reason) {
  process.stderr.write(`chef: ${reason}\n`, () => process.exit(code));
}

// Either side may finish first and still listen: `pipe` forwards the end, and slows down a sender that is too fast.
function carry(client) {
  const proxy = connect({ path: socketPath, allowHalfOpen: true });
  for (const [from, to] of [[client, proxy], [proxy, client]]) {
    from.pipe(to);
    from.on('error', () => to.destroy());
  }
}

function run() {
  const child = spawn(command, args, { stdio: 'inherit' });
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => leave(error.code === 'ENOENT' ? 127 : 126, `cannot run ${command}: ${error.code}`));
  child.on('exit', (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
}

const server = createServer({ allowHalfOpen: true, noDelay: true }, carry);
server.on('error', (error) => leave(70, `cannot listen on 127.0.0.1:${port}: ${error.code}`));
if (separator !== '--' || !command || !(Number(port) > 0 && Number(port) < 65536)) {
  leave(64, 'usage: node forward.mjs SOCKET PORT -- command [argument...]');
} else {
  server.listen({ host: '127.0.0.1', port: Number(port), backlog: 1024 }, run);
}
