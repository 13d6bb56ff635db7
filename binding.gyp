{
  'variables': {
    # node-gyp rebuild -- -Dsanitize=1 builds with AddressSanitizer and UndefinedBehaviorSanitizer
    'sanitize%': 0,
  },
  'targets': [
    {
      'target_name': 'faketcp',
      'conditions': [
        ['OS!="linux"', {'type': 'none'}],
        ['OS=="linux"', {
          'sources': [
            'native/addon.cc',
            'native/address.cc',
            'native/aead.cc',
            'native/callback.cc',
            'native/capture.cc',
            'native/capture_socket.cc',
            'native/carrier.cc',
            'native/carrier_inbox.cc',
            'native/carrier_listener.cc',
            'native/carrier_socket.cc',
            'native/coalesce.cc',
            'native/env.cc',
            'native/evp.cc',
            'native/handover.cc',
            'native/headers.cc',
            'native/js_values.cc',
            'native/link_header.cc',
            'native/netlink.cc',
            'native/offload.cc',
            'native/owned_child.cc',
            'native/packet_sender.cc',
            'native/parse.cc',
            'native/path_report.cc',
            'native/path_reports.cc',
            'native/poll.cc',
            'native/raw_sender.cc',
            'native/route.cc',
            'native/route_socket.cc',
            'native/sender.cc',
            'native/tunnel_codec.cc',
            'native/tunnel_messages.cc',
            'native/wrapped.cc',
          ],
          'defines': ['NAPI_VERSION=8'],
          'cflags_cc': ['-std=c++17', '-Wall', '-Wextra', '-Werror', '-fvisibility=hidden'],
          'cflags_cc!': ['-std=gnu++17', '-std=gnu++20'],
          'conditions': [
            ['sanitize==1', {
              'cflags!': ['-O3', '-O2'],
              'cflags_cc!': ['-O3', '-O2'],
              'cflags_cc': [
                '-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-fno-omit-frame-pointer', '-O1', '-g',
              ],
              'ldflags': ['-fsanitize=address,undefined'],
            }],
          ],
        }],
      ],
    },
  ],
}
