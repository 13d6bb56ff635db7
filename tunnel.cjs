module.exports = require('./dist/tunnel.js')
