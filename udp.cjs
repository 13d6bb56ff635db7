module.exports = require('./dist/udp.js')
