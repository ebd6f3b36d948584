// Makes a client's key and prints the client's entry for the configuration.
//
// usage: node register.js KEY_FILE CLIENT_ID AUDIENCE

import { generateKeyPairSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'

const [keyFile, clientId, audience] = process.argv.slice(2)
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const pem = privateKey.export({ format: 'pem', type: 'pkcs8' })
writeFileSync(keyFile, pem, { mode: 0o600, flag: 'wx' })
const jwk = publicKey.export({ format: 'jwk' })
const members = ['kty', 'crv', 'x', 'y'].map((name) => `${name} = "${jwk[name]}"`).join(', ')

console.log(`
[[realms.clients]]
id = "${clientId}"
keys = [{ ${members} }]

[[realms.clients.grants]]
name = "${clientId}"
audiences = ["${audience}"]
`)
