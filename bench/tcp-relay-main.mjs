// Passes TCP connections on: node tcp-relay-main.mjs FROM-ADDRESS FROM-PORT TO-ADDRESS TO-PORT
import { connect, createServer } from 'node:net'
import { argv } from 'node:process'
import { pipeline } from 'node:stream'

const [fromAddress, fromPort, toAddress, toPort] = argv.slice(2)
const server = createServer((inside) => {
  const outside = connect({ host: toAddress, port: Number(toPort) })
  // iperf3 ends its connections as it likes.
  pipeline(inside, outside, inside, () => {})
})
server.listen(Number(fromPort), fromAddress, () => console.log('relaying'))
